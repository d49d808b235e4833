"""The general pack: no assumptions about the business."""

from __future__ import annotations

from modeling.packs.base import Pack

GENERAL = Pack(
    slug="general",
    name="General",
    about="Text, conversations or interactions of any kind.",
    default_task="classification",
    epsilon_ceiling=10.0,
    column_hints={},
    unit_hints=("person_id", "user_id", "customer_id", "member_id", "employee_id", "email", "subject_id"),
    wording={
        "person": "person",
        "people": "people",
        "record": "record",
        "records": "records",
        "item": "item",
        "each_row": "Each row is one person",
    },
)
