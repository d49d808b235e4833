"""The finance pack: customer messages and conversations, customers as the unit of privacy."""

from __future__ import annotations

from modeling.packs import tables
from modeling.packs.base import Pack
from modeling.packs.samples.bank import BANK_CONVERSATIONS, BANK_MESSAGES
from modeling.packs.samples.loans import BANK_LOANS

FINANCE = Pack(
    slug="finance",
    name="Finance",
    about="Customer messages, complaints, fraud notes and support conversations.",
    default_task="classification",
    epsilon_ceiling=8.0,
    column_hints={
        "text": (
            "message",
            "complaint",
            "narrative",
            "consumer_complaint_narrative",
            "memo",
            "note",
            "enquiry",
        ),
        "label": (
            "topic",
            "reason",
            "product",
            "issue",
            "decision",
            "defaulted",
            "default",
            "risk",
            "is_fraud",
            "intent",
        ),
    },
    unit_hints=(
        "customer_id",
        "client_id",
        "customer",
        "client",
        "account_holder",
        "account_id",
        "account_number",
        "iban",
    ),
    wording={
        "person": "customer",
        "people": "customers",
        "record": "message",
        "records": "messages",
        "item": "product",
        "each_row": "Each row is one customer",
    },
    table_columns=tables.FINANCE,
    protected=(*tables.SEX_COLUMNS, *tables.AGE_COLUMNS, *tables.ETHNICITY_COLUMNS),
    samples=(BANK_MESSAGES, BANK_CONVERSATIONS, BANK_LOANS),
)
