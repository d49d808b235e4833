"""Tenant scope: the transaction-bound tenant setting, tenant-owned models and their guarded manager."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from django.db import connection, models, transaction

from saas.lib.db import uuid7

if TYPE_CHECKING:
    from tenants.models import Tenant

DOORS = frozenset({"user_id", "key_hash", "invite_hash", "stripe_customer"})
OPERATOR = "operator"
_current: ContextVar[uuid.UUID | None] = ContextVar("tenant", default=None)
M = TypeVar("M", bound=models.Model)


class OutOfScope(Exception):
    """A tenant's rows were asked for outside of that tenant's scope: a bug, never the user's fault."""


def current() -> uuid.UUID | None:
    """The id of the tenant whose scope is open here, or None."""
    return _current.get()


def identity(tenant: Tenant | uuid.UUID | str) -> uuid.UUID:
    """The id of a tenant given as a row, a uuid or text."""
    if isinstance(tenant, uuid.UUID):
        return tenant
    return uuid.UUID(tenant) if isinstance(tenant, str) else tenant.pk


@contextmanager
def scope(tenant: Tenant | uuid.UUID | str) -> Iterator[None]:
    """Open a transaction in which row-level security shows this tenant's rows only.

    The setting is bound to the transaction; on leaving, the earlier value returns (a savepoint or transaction
    that rolls back restores it by itself).
    """
    tenant_id = identity(tenant)
    with _setting("tenant_id", str(tenant_id)):
        token = _current.set(tenant_id)
        try:
            yield
        finally:
            _current.reset(token)


@contextmanager
def door(name: str, value: str) -> Iterator[None]:
    """Open one of the SELECT-only doors used before a tenant is known, such as a key's hash or a person's id."""
    if name not in DOORS:
        raise OutOfScope(f"There is no door named {name}.")
    with _setting(name, value):
        yield


@contextmanager
def _setting(name: str, value: str) -> Iterator[None]:
    """In another transaction the earlier value returns at the end; one of our own ends with its setting."""
    is_nested = connection.in_atomic_block
    with transaction.atomic():
        before = ""
        with connection.cursor() as cursor:
            if is_nested:
                cursor.execute("SELECT current_setting(%s, true)", [f"app.{name}"])
                before = cursor.fetchone()[0] or ""
            cursor.execute("SELECT set_config(%s, %s, true)", [f"app.{name}", value])
        yield
        if is_nested:
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config(%s, %s, true)", [f"app.{name}", before])


class TenantQuerySet(models.QuerySet[M]):
    """Rows of one tenant; `create` fills in the tenant."""

    tenant_id: uuid.UUID | None = None

    def _clone(self) -> Self:
        clone: Self = super()._clone()  # type: ignore[misc]
        clone.tenant_id = self.tenant_id
        return clone

    def create(self, **values: Any) -> M:
        """Insert a row of this tenant."""
        if self.tenant_id is not None:
            values.setdefault("tenant_id", self.tenant_id)
        return super().create(**values)


class ScopedManager(models.Manager[M], Generic[M]):
    """The handrail: rows only through `of(tenant)` inside that tenant's scope; plain `.all()` raises."""

    def get_queryset(self) -> TenantQuerySet[M]:
        """Refuse: a query must say whose rows it wants."""
        raise OutOfScope(f"Use {self.model.__name__}.objects.of(tenant) inside scope(tenant).")

    def of(self, tenant: Tenant | uuid.UUID | str) -> TenantQuerySet[M]:
        """This tenant's rows; raises OutOfScope unless its scope is open."""
        tenant_id = identity(tenant)
        if current() != tenant_id:
            raise OutOfScope(f"{self.model.__name__} was asked for outside of its tenant's scope.")
        rows: TenantQuerySet[M] = TenantQuerySet(self.model).filter(tenant_id=tenant_id)
        rows.tenant_id = tenant_id
        return rows

    def everywhere(self) -> TenantQuerySet[M]:
        """Rows of all tenants for the console and the dispatcher, read through the operator role's grants."""
        return TenantQuerySet(self.model, using=OPERATOR)


class TenantForeignKey(models.ForeignKey):  # type: ignore[type-arg]
    """A foreign key between rows of one tenant; Isolate adds the composite constraint (tenant_id, id)."""

    def __init__(self, to: Any, on_delete: Any, **options: Any) -> None:
        options["db_constraint"] = False
        options.setdefault("related_name", "+")
        super().__init__(to, on_delete, **options)

    def deconstruct(self) -> Any:
        """Migrations import the field from here."""
        name, path, arguments, options = super().deconstruct()
        options.pop("db_constraint", None)
        return name, path, arguments, options


class TenantOwned(models.Model):
    """Base of every row that belongs to a tenant."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.CASCADE, related_name="+", editable=False)

    objects: ClassVar[ScopedManager[Self]] = ScopedManager()

    class Meta:
        abstract = True
