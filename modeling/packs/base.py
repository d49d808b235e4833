"""A pack: one vertical's column hints, unit of privacy, epsilon ceiling, wording and samples, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from modeling.packs import tables
from modeling.packs.tables import KnownColumn

ROLES = (
    *("text", "label", "unit", "user", "item", "timestamp", "messages", "prompt", "completion"),
    *("catalogue_id", "catalogue_text"),
)


@dataclass(frozen=True)
class Sample:
    """One demo file: `build()` returns its bytes, the same on every machine, and `sha256` is their published digest.

    `columns` maps a role (text, label, user, item, …) to a column name; `unit` is the column that says whose record a
    row is ("" when each row is one person). `catalogue` is the slug of the sample holding the item catalogue.
    """

    slug: str
    title: str
    filename: str
    purpose: str  # fine-tune | user_data
    format: str  # csv | jsonl
    task: str  # classification | chat | recommendation; "" for a catalogue
    columns: Mapping[str, str]
    unit: str
    rows: int
    sha256: str
    is_synthetic: bool
    licence: str
    about: str
    build: Callable[[], bytes]
    catalogue: str = ""


@dataclass(frozen=True)
class Pack:
    """One vertical. Hints are lower-case column names, the most telling first; wording is English source text."""

    slug: str
    name: str
    about: str
    default_task: str
    epsilon_ceiling: float
    column_hints: Mapping[str, tuple[str, ...]]
    unit_hints: tuple[str, ...]
    wording: Mapping[str, str]
    samples: tuple[Sample, ...] = ()
    lifetime_factor: float = 3.0
    extra: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    table_columns: Mapping[str, KnownColumn] = field(default_factory=lambda: MappingProxyType({}))
    protected: tuple[str, ...] = ()  # columns of a table that are compared for fairness and never learnt from

    @property
    def lifetime_epsilon(self) -> float:
        """The default lifetime budget of one lineage: `lifetime_factor` times the ceiling of one job."""
        return self.epsilon_ceiling * self.lifetime_factor

    def known_column(self, name: str) -> KnownColumn | None:
        """What a table's column of this normalised name holds in this vertical, or nothing."""
        return self.table_columns.get(name) or tables.SHARED.get(name)

    def hints(self, role: str) -> tuple[str, ...]:
        """This pack's hints for a role, followed by those every vertical shares; no duplicates."""
        own = self.unit_hints if role in ("unit", "user") else self.column_hints.get(role, ())
        return tuple(dict.fromkeys((*self.column_hints.get(role, ()), *own, *SHARED_HINTS.get(role, ()))))


SHARED_HINTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "text": (
            "text",
            "description",
            "message",
            "note",
            "body",
            "content",
            "comment",
            "sentence",
            "review",
            "input",
        ),
        "label": ("label", "class", "category", "topic", "target", "intent", "outcome", "tag", "sentiment"),
        "unit": (
            "person_id",
            "user_id",
            "customer_id",
            "patient_id",
            "subject_id",
            "client_id",
            "member_id",
            "person",
        ),
        "user": (
            "user_id",
            "user",
            "customer_id",
            "person_id",
            "visitor_id",
            "member_id",
            "shopper_id",
            "customer",
        ),
        "item": ("item_id", "product_id", "item", "sku", "product", "article_id", "asin", "movie_id"),
        "timestamp": (
            *("timestamp", "time", "datetime", "created_at", "event_time", "occurred_at", "date", "created"),
            *(
                "visit_date",
                "admitted_at",
                "admission_date",
                "order_date",
                "purchased_at",
                "transaction_date",
            ),
        ),
        "messages": ("messages",),
        "prompt": ("prompt", "instruction"),
        "completion": ("completion", "response"),
        "catalogue_id": ("item_id", "product_id", "sku", "id", "article_id", "asin"),
        "catalogue_text": ("text", "description", "title", "name", "product_name"),
    }
)
