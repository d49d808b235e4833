"""User, Tenant, Member, Invite, ApiKey, vault objects and their keys, AuditEntry."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from saas.lib.db import public_id, uuid7
from tenants.scope import TenantForeignKey, TenantOwned


class UserManager(BaseUserManager["User"]):
    """Makes users; the e-mail address is the login."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        """A person with a lower-cased e-mail address."""
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> User:
        """An operator with every right in the console."""
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractBaseUser, PermissionsMixin):
    """A person; shared by all tenants, since signing in happens before a tenant is known."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    email = models.EmailField(_("e-mail address"), unique=True)
    name = models.CharField(_("name"), max_length=120, blank=True)
    is_staff = models.BooleanField(default=False)
    is_active = models.BooleanField(default=True)
    date_joined = models.DateTimeField(default=timezone.now)

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []
    objects: ClassVar[UserManager] = UserManager()

    def __str__(self) -> str:
        return self.email


class Tenant(models.Model):
    """A customer. The slug is public, part of model names and never changes."""

    class State(models.TextChoices):
        """Suspended tenants keep their data and lose everything else; erased ones lose their data and their name."""

        ACTIVE = "active", _("active")
        SUSPENDED = "suspended", _("suspended")
        ERASED = "erased", _("erased")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    slug = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=120)
    pack = models.CharField(max_length=20)
    state = models.CharField(max_length=12, choices=State.choices, default=State.ACTIVE)
    suspended_reason = models.CharField(max_length=300, blank=True)
    erase_at = models.DateTimeField(null=True)  # when it is to be erased; None: never, or it was
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.slug


class ReservedSlug(models.Model):
    """The keyed digest of an erased tenant's slug, so that nobody ever gets model names of theirs; shared, no names."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    digest = models.CharField(max_length=64, unique=True)

    def __str__(self) -> str:
        return self.digest


class TenantErasure(TenantOwned):
    """The wish that a tenant be erased, and how far it is. The row stays for good, in the end without a name.

    Three things outside of this database are repeated until they are done: bytes, engines' memory, the subscription.
    """

    class State(models.TextChoices):
        """Withdrawn in time, or erased; from `running` on there is no way back."""

        REQUESTED = "requested", _("requested")
        WITHDRAWN = "withdrawn", _("withdrawn")
        RUNNING = "running", _("being erased")
        ERASED = "erased", _("erased")

    # What the operator role may read: never who asked, nor why.
    OPERATOR_COLUMNS = (
        "id", "tenant_id", "state", "by_kind", "requested_at", "due_at", "shredded_at", "erased_at", "objects_at",
        "engines_at", "billing_at", "looked_at", "trouble",
    )  # fmt: skip

    state = models.CharField(max_length=12, choices=State.choices, default=State.REQUESTED)
    by_kind = models.CharField(max_length=10)  # user | operator | system
    requested_by = models.CharField(max_length=200, blank=True)  # emptied at the end, as the reason is
    reason = models.CharField(max_length=300, blank=True)
    requested_at = models.DateTimeField(auto_now_add=True)
    due_at = models.DateTimeField()
    shredded_at = models.DateTimeField(null=True)  # the keys are destroyed
    erased_at = models.DateTimeField(null=True)  # and the rows are gone
    objects_at = models.DateTimeField(null=True)
    engines_at = models.DateTimeField(null=True)
    billing_at = models.DateTimeField(null=True)
    looked_at = models.DateTimeField(null=True)  # a last look, for what was written while it was erased
    trouble = models.CharField(max_length=300, blank=True)  # what does not go through yet, without data
    evidence = models.JSONField(default=dict)  # the heads of both chains, and how many rows went

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["tenant"],
                condition=models.Q(state__in=("requested", "running")),
                name="one_open_tenant_erasure",
            ),
        ]

    def __str__(self) -> str:
        return f"erasure {self.state}"


class Role(models.TextChoices):
    """What a member may do, in rising order."""

    VIEWER = "viewer", _("viewer")
    MEMBER = "member", _("member")
    OWNER = "owner", _("owner")


class Member(TenantOwned):
    """A person in a tenant, with a role."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    role = models.CharField(max_length=8, choices=Role.choices)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "user"], name="member_once_per_tenant"),
        ]


class Invite(TenantOwned):
    """An invitation by e-mail; the token is mailed and only its hash kept."""

    email = models.EmailField()
    role = models.CharField(max_length=8, choices=Role.choices)
    token_hash = models.CharField(max_length=64)
    invited_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "token_hash"], name="invite_token_once"),
        ]


def key_id() -> str:
    """The public id of an API key."""
    return public_id("key_")


class ApiKey(TenantOwned):
    """What may be known of an API key; the secret's digest is in ApiKeySecret."""

    public_id = models.CharField(max_length=32, default=key_id, editable=False)
    name = models.CharField(max_length=80)
    scopes = ArrayField(models.CharField(max_length=12))
    last4 = models.CharField(max_length=4)
    created_by = models.CharField(max_length=200)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "public_id"], name="api_key_public_id"),
        ]


class ApiKeySecret(TenantOwned):
    """HMAC-SHA256 of an API key under the pepper; no operator may read this table."""

    key = TenantForeignKey(ApiKey, on_delete=models.CASCADE)
    digest = models.CharField(max_length=64)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["digest"], name="api_key_digest"),
        ]


class DataKey(TenantOwned):
    """One generation of the tenant's key, wrapped by a root key; destroying all of them shreds the tenant.

    Generation 0 is the secret that other keys are derived from, and never changes; the newest of the others wraps.
    """

    generation = models.PositiveIntegerField(default=0)
    wrapped = models.BinaryField()
    root_id = models.CharField(max_length=64)
    is_refused = models.BooleanField(default=False)  # the tenant's own key service said no when last asked
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "generation"], name="one_tenant_key"),
        ]


class OwnKey(TenantOwned):
    """A key of the tenant's own in AWS KMS or Vault that wraps (or wrapped) its keys; never the key itself."""

    class State(models.TextChoices):
        """Being taken, in use, and left again."""

        TAKING = "taking", _("being taken into use")
        ACTIVE = "active", _("in use")
        LEFT = "left", _("left")

    reference = models.CharField(max_length=300)
    root_id = models.CharField(max_length=64)
    state = models.CharField(max_length=8, choices=State.choices, default=State.TAKING)
    refused_at = models.DateTimeField(null=True)
    reason = models.CharField(max_length=300, blank=True)
    checked_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "root_id"], name="own_key_once"),
            models.UniqueConstraint(
                fields=["tenant"], condition=~models.Q(state="left"), name="one_own_key_in_use"
            ),
        ]


class KeyRotation(TenantOwned):
    """One rotation of a tenant's keys in the background: how far it is, and how it ended."""

    class Kind(models.TextChoices):
        """A new tenant key that wraps everything again, or new data keys and the objects sealed again."""

        TENANT = "tenant", _("tenant key")
        DATA = "data", _("data keys")

    class State(models.TextChoices):
        """A rotation goes on until it is done."""

        RUNNING = "running", _("running")
        DONE = "done", _("done")

    kind = models.CharField(max_length=8, choices=Kind.choices)
    state = models.CharField(max_length=8, choices=State.choices, default=State.RUNNING)
    object_kind = models.CharField(max_length=20, blank=True)  # data keys: of which objects; "" all
    object_id = models.UUIDField(null=True)  # data keys: of this one object
    total = models.PositiveIntegerField(default=0)
    done = models.PositiveIntegerField(default=0)
    table = models.PositiveSmallIntegerField(default=0)  # where it is: which table, after which row
    after = models.UUIDField(null=True)
    trouble = models.CharField(max_length=300, blank=True)  # why it waits, in words
    started_by = models.CharField(max_length=200)
    created_at = models.DateTimeField(auto_now_add=True)
    moved_at = models.DateTimeField(auto_now=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["tenant"], condition=models.Q(state="running"), name="one_rotation_at_once"
            ),
        ]


class VaultObject(TenantOwned):
    """A sealed object: its kind, size and digest; the bytes are in the object store."""

    kind = models.CharField(max_length=20)
    version = models.PositiveIntegerField(default=1)
    size_bytes = models.BigIntegerField()
    sealed_bytes = models.BigIntegerField()
    digest = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)
    destroyed_at = models.DateTimeField(null=True)


class JoinedPart(TenantOwned):
    """One object's turn in another that has no bytes of its own, see tenants/vault_joined.py."""

    whole = TenantForeignKey(VaultObject, on_delete=models.CASCADE)
    part = TenantForeignKey(VaultObject, on_delete=models.CASCADE)
    place = models.PositiveIntegerField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "whole", "place"], name="joined_part_place"),
        ]


class ObjectKey(TenantOwned):
    """An object's data key, wrapped by the tenant's key; destroying the row shreds the object."""

    object = TenantForeignKey(VaultObject, on_delete=models.CASCADE)
    wrapped = models.BinaryField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "object"], name="one_key_per_object"),
        ]


class Tombstone(TenantOwned):
    """Something of a tenant's that was destroyed for good, see tenants/tombstones.py; insert only.

    The row travels with the backups of keys; its double lies outside of the database.
    """

    kind = models.CharField(max_length=20)
    reference = models.CharField(max_length=200, blank=True)
    at = models.DateTimeField()

    class Meta:
        indexes: ClassVar[list[models.Index]] = [models.Index(fields=["at"], name="tombstone_at")]

    def __str__(self) -> str:
        return f"{self.kind} {self.reference}"


class StoreSweep(TenantOwned):
    """What the last nightly look at a tenant's objects found; the operators' console shows what is wrong."""

    at = models.DateTimeField()
    objects_seen = models.BigIntegerField()
    removed = models.BigIntegerField()
    left = models.BigIntegerField()  # bytes without a row that stay, because there are too many of them
    missing = models.BigIntegerField()  # rows without bytes
    missing_ids = models.JSONField(default=list)  # of the first hundred

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant"], name="one_sweep_per_tenant"),
        ]

    def __str__(self) -> str:
        return f"{self.missing} missing, {self.left} left"


class AuditEntry(TenantOwned):
    """One change and who made it, chained per tenant; insert only."""

    seq = models.BigIntegerField()
    at = models.DateTimeField()
    actor_kind = models.CharField(max_length=10)
    actor = models.CharField(max_length=200)
    action = models.CharField(max_length=60)
    object_type = models.CharField(max_length=40, blank=True)
    object_id = models.CharField(max_length=80, blank=True)
    details = models.JSONField(default=dict)
    previous_hash = models.CharField(max_length=64)
    entry_hash = models.CharField(max_length=64)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "seq"], name="audit_seq"),
        ]
