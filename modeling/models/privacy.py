"""The privacy ledger: one budget per lineage of people, and an append-only, hash-chained list of what was spent."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q

from tenants.scope import TenantForeignKey, TenantOwned


class PrivacyAccount(TenantOwned):
    """The lifetime budget of one lineage: the datasets that share people. Locked FOR UPDATE to reserve.

    When two lineages turn out to share people, the younger account is merged into the older one and stays for history.
    `is_parallel` is false when the two did not split their people alike: then train and held-out no longer compose in
    parallel, and are added up.
    """

    unit_label = models.CharField(max_length=200)  # a column name, or "row"
    lifetime_epsilon = models.FloatField()
    delta = models.FloatField()
    no_bound = models.BooleanField(default=False)
    is_parallel = models.BooleanField(default=True)
    merged_into = TenantForeignKey("self", null=True, on_delete=models.PROTECT)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(condition=Q(lifetime_epsilon__gt=0), name="account_lifetime_positive"),
            models.CheckConstraint(condition=Q(delta__gt=0, delta__lt=1), name="account_delta_in_range"),
        ]

    def __str__(self) -> str:
        return f"privacy account of {self.unit_label}"


class PrivacyEntry(TenantOwned):
    """One line of the ledger; never updated, never deleted (the app role has no right to)."""

    class Kind(models.TextChoices):
        """Reserved before the first gradient, charged block by block, closed once by one of the last three."""

        RESERVED = "reserved"
        CHARGED = "charged"
        SETTLED = "settled"
        RELEASED = "released"
        FAILED = "failed"
        UNBOUNDED = "unbounded"  # a job with privacy off

    CLOSING = (Kind.SETTLED, Kind.RELEASED, Kind.FAILED)

    seq = models.PositiveBigIntegerField()
    account = TenantForeignKey(PrivacyAccount, on_delete=models.PROTECT)
    job = TenantForeignKey("modeling.Job", on_delete=models.PROTECT)
    dataset_version = TenantForeignKey("modeling.DatasetVersion", null=True, on_delete=models.PROTECT)
    kind = models.CharField(max_length=12, choices=Kind.choices)
    partition = models.CharField(max_length=10, blank=True)
    mechanism = models.JSONField(default=dict)  # name, count, first; sigma, sampling_rate, clip as hex floats
    facts = models.JSONField(default=dict)  # adjacency, delta, unit, content hash, epoch, versions
    rdp = models.JSONField(default=list)  # of the whole `count`, on the fixed grid of orders
    epsilon = models.FloatField(null=True)  # PLD, zero-out, worst partition
    epsilon_replace_one = models.FloatField(null=True)
    at = models.DateTimeField()
    previous_hash = models.CharField(max_length=64)
    entry_hash = models.CharField(max_length=64)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "seq"], name="ledger_seq"),
            models.UniqueConstraint(fields=["tenant", "previous_hash"], name="ledger_has_no_fork"),
            models.UniqueConstraint(
                fields=["tenant", "job"],
                condition=Q(kind__in=["settled", "released", "failed"]),
                name="ledger_closes_once",
            ),
            models.CheckConstraint(
                condition=Q(partition__in=["", "train", "held_out"]), name="ledger_partition"
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["tenant", "account", "job"], name="ledger_by_account")
        ]

    def __str__(self) -> str:
        return f"ledger entry {self.seq}"


class LedgerHead(TenantOwned):
    """The last number and hash of a tenant's ledger: locked to append, exported so that a cut tail shows."""

    seq = models.PositiveBigIntegerField(default=0)
    entry_hash = models.CharField(max_length=64, default="0" * 64)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant"], name="one_ledger_head")
        ]

    def __str__(self) -> str:
        return f"ledger head at {self.seq}"
