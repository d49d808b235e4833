"""File, Inspection, Dataset, DatasetVersion, and the keys of datasets and of the people in them."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from saas.lib.db import public_id
from tenants.scope import TenantForeignKey, TenantOwned


def file_id() -> str:
    """The public id of a file."""
    return public_id("file-")


def dataset_id() -> str:
    """The public id of a dataset."""
    return public_id("ds-")


class File(TenantOwned):
    """What was uploaded. `object` is the raw stream until inspection has rewritten it per person, then null; a refused
    file keeps it for a day, to be read in another way, and files of batches keep it."""

    class Status(models.TextChoices):
        """The three states of OpenAI's file object."""

        UPLOADED = "uploaded", _("uploaded")
        PROCESSED = "processed", _("processed")
        ERROR = "error", _("error")

    class Purpose(models.TextChoices):
        """Records of people to train on, data about things, or the requests and answers of a batch."""

        FINE_TUNE = "fine-tune", _("training data")
        USER_DATA = "user_data", _("catalogue")
        BATCH = "batch", _("requests of a batch")
        BATCH_OUTPUT = "batch_output", _("answers of a batch")

    KEPT_AS_IS: ClassVar[tuple[str, ...]] = (Purpose.BATCH, Purpose.BATCH_OUTPUT)  # sealed, never inspected

    public_id = models.CharField(max_length=40, default=file_id, editable=False)
    name = models.CharField(max_length=255)
    purpose = models.CharField(max_length=12, choices=Purpose.choices)
    format = models.CharField(max_length=8, blank=True)  # csv | jsonl, known after inspection
    encoding = models.CharField(max_length=16, blank=True)  # declared before `reading` was kept
    reading = models.JSONField(default=dict)  # declared: encoding, delimiter, quote, format; absent = guess
    personal_data = models.JSONField(
        default=dict
    )  # declared: entities, columns; absent = the tenant's policy
    size_bytes = models.BigIntegerField()
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.UPLOADED)
    status_details = models.CharField(max_length=500, blank=True)
    errors = models.JSONField(
        default=list
    )  # why the file was refused, when it was: [{line, column, rule, fix}], the first 1,000
    errors_by_rule = models.JSONField(default=dict)  # all of them counted
    object = TenantForeignKey("tenants.VaultObject", null=True, on_delete=models.PROTECT)
    created_by = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True)  # the uploader's own wish; a task deletes it then
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "public_id"], name="file_public_id"),
        ]

    def __str__(self) -> str:
        return self.public_id


class Inspection(TenantOwned):
    """The claim on inspecting one file, without anything of the tenant's in it: the sweeper sees all tenants' rows."""

    file = TenantForeignKey(File, on_delete=models.CASCADE)
    attempts = models.PositiveSmallIntegerField(default=0)
    lease_until = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    done_at = models.DateTimeField(null=True)
    rows_done = models.BigIntegerField(default=0)  # so far, in the present attempt
    bytes_done = models.BigIntegerField(default=0)
    kept_until = models.DateTimeField(
        null=True
    )  # when a refused file's raw stream is destroyed; null: it is gone

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "file"], name="one_inspection_per_file"),
        ]


class Dataset(TenantOwned):
    """Versions of one table. `unit_column` is "" when each row is one person; fixed at the first private job."""

    public_id = models.CharField(max_length=40, default=dataset_id, editable=False)
    name = models.CharField(max_length=255)
    pack = models.CharField(max_length=20)
    task = models.CharField(max_length=20, blank=True)  # guessed: classification | recommendation | chat | ""
    columns = models.JSONField(default=dict)  # role -> column name, as guessed or chosen
    uses = models.JSONField(default=dict)  # column -> feature | sensitive | leave, once somebody said so
    declared = models.JSONField(
        default=dict
    )  # column -> public bounds or categories; see actions/dataset_schema.py
    declared_at = models.DateTimeField(null=True)  # when columns were last confirmed by a person or a key
    is_catalogue = models.BooleanField(default=False)  # declared public: things, not records of people
    unit_column = models.CharField(max_length=200, blank=True)
    unit_fixed = models.BooleanField(default=False)
    account = TenantForeignKey("modeling.PrivacyAccount", null=True, on_delete=models.PROTECT)
    created_at = models.DateTimeField(auto_now_add=True)
    deleted_at = models.DateTimeField(null=True)  # the rows are shredded; what was spent on them stays known
    merged_into = TenantForeignKey(
        "self", null=True, on_delete=models.PROTECT
    )  # its rows went into that dataset

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "public_id"], name="dataset_public_id"),
        ]

    def __str__(self) -> str:
        return self.public_id


class DatasetVersion(TenantOwned):
    """One immutable state of a dataset: its segments, its schema and what was wrong with its rows.

    `content_hash` of a version made of a file is the keyed hash of the file's bytes; of one made of another version it
    is its `rows_hash`: over the set of its rows as they were written, free of their order and of the cut.
    """

    class Mode(models.TextChoices):
        """What made a version."""

        FILE = "file", _("uploaded")
        CUT = "cut", _("cut by another unit")
        READ = "read", _("read in another way")
        APPEND = "append", _("rows added")
        REPLACE = "replace", _("people’s rows replaced")
        REMOVE = "remove", _("people removed")
        MASK = "mask", _("personal data masked")

    CHAINED: ClassVar[tuple[str, ...]] = (Mode.APPEND, Mode.REPLACE, Mode.REMOVE, Mode.MASK)

    dataset = TenantForeignKey(Dataset, on_delete=models.PROTECT)
    number = models.PositiveIntegerField()
    file = TenantForeignKey(File, null=True, on_delete=models.PROTECT)
    rows = models.BigIntegerField()
    units = models.BigIntegerField()
    unit_column = models.CharField(max_length=200, blank=True)
    labels = models.JSONField(default=list)  # distinct values of the label column, sorted; [] without one
    schema = models.JSONField(
        default=dict
    )  # see modeling/actions/inspection.py: format, columns, guesses, layout
    errors = models.JSONField(
        default=list
    )  # the first 1,000: [{line, column, rule, fix}], never a cell's content
    error_count = models.BigIntegerField(default=0)
    errors_by_rule = models.JSONField(default=dict)
    segments = TenantForeignKey("tenants.VaultObject", null=True, on_delete=models.PROTECT)
    content_hash = models.CharField(max_length=64)  # keyed: says nothing outside of the tenant
    personal_data = models.JSONField(
        default=dict
    )  # what inspection found and did, in counts; core/personal_rows.py
    row_marks = models.BinaryField(
        default=bytes
    )  # sorted 8-byte keyed row hashes, the smallest 16,384 (lineage)
    parent = TenantForeignKey("self", null=True, on_delete=models.PROTECT)
    mode = models.CharField(max_length=10, choices=Mode.choices, default=Mode.FILE)
    changes = models.JSONField(
        default=dict
    )  # counts against the parent: see modeling/actions/version_rows.py
    made_by = models.CharField(max_length=200, blank=True)
    rows_hash = models.CharField(max_length=64, blank=True)  # "" until somebody has read all rows
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "dataset", "number"], name="dataset_version_number"),
        ]

    def __str__(self) -> str:
        return f"version {self.number}"


def dataset_place(dataset_id: uuid.UUID) -> str:
    """What a dataset's key is bound to when it is wrapped."""
    return f"cloister/dataset-key/v1|{dataset_id}"


class DatasetKey(TenantOwned):
    """The key that wraps a dataset's unit keys, itself wrapped under the tenant's key; no operator may read it."""

    dataset = TenantForeignKey(Dataset, on_delete=models.CASCADE)
    wrapped = models.BinaryField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "dataset"], name="one_key_per_dataset"),
        ]


class UnitKey(TenantOwned):
    """One person's key in one dataset; `wrapped` is emptied to shred the person in every version."""

    dataset = TenantForeignKey(Dataset, on_delete=models.CASCADE)
    handle = models.BinaryField(
        max_length=16
    )  # keyed hash of the person, the same in all of the tenant's datasets
    wrapped = models.BinaryField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "dataset", "handle"], name="one_key_per_unit"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["tenant", "handle"], name="unit_key_handle"),
        ]
