"""What each vertical does with personal data in uploads, until a tenant's owner chooses otherwise; and why."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# A model learns nothing useful from an exact identifier, and differential privacy bounds what is learnt from a person,
# not what a reader of the rows sees: so identifiers are masked. What carries meaning is only reported.
_NUMBERS = dict.fromkeys(("card", "iban", "account", "national_id", "url", "ip"), "mask")
_CONTACT = dict.fromkeys(("email", "phone", "address"), "mask")
_ALL = (*_NUMBERS, *_CONTACT, "mrn", "date_of_birth", "name")

POLICIES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        # HIPAA's safe harbour list: names, births, record numbers, contacts and ids go. Other dates carry the course of
        # an illness, and are reported; a clinic that shares rows outside of its own walls sets them to mask.
        "medical": {
            **_NUMBERS,
            **_CONTACT,
            "mrn": "mask",
            "date_of_birth": "mask",
            "name": "mask",
            "date": "report",
        },
        # Numbers that move money or prove an identity go. Names stay: payees and merchants are what a message is about.
        "finance": {
            **_NUMBERS,
            **_CONTACT,
            "mrn": "mask",
            "date_of_birth": "mask",
            "name": "report",
            "date": "off",
        },
        # Payment and contact data go. Names in reviews are brands and people in books as often as customers.
        "retail": {
            **_NUMBERS,
            **_CONTACT,
            "mrn": "mask",
            "date_of_birth": "mask",
            "name": "report",
            "date": "off",
        },
        # Nothing is known about the business: nothing is changed, everything but dates is counted.
        "general": {**dict.fromkeys(_ALL, "report"), "date": "off"},
    }
)


def policy_of(slug: str) -> Mapping[str, str]:
    """{kind: action} of a vertical."""
    return POLICIES.get(slug, POLICIES["general"])
