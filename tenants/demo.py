"""The demo's people and tenants, as data; they are made only on embedded services with CLOISTER_DEMO=1."""

from __future__ import annotations

from dataclasses import dataclass

PASSWORD = "cloister-demo"  # noqa: S105  printed at every demo start
OPERATOR_EMAIL = "operator@example.com"


@dataclass(frozen=True)
class DemoTenant:
    """A demo tenant and the person who owns it."""

    email: str
    tenant: str
    slug: str
    pack: str
    about: str
    password: str = PASSWORD


DEMO_TENANTS = (
    DemoTenant(
        "clinic@example.com",
        "Northgate Clinic",
        "northgate-clinic",
        "medical",
        "21,600 ICD-10-CM descriptions in 21 chapters",
    ),
    DemoTenant(
        "bank@example.com", "Harbor Bank", "harbor-bank", "finance", "synthetic messages and conversations"
    ),
    DemoTenant(
        "shop@example.com",
        "Fern & Co",
        "fern-co",
        "retail",
        "a synthetic catalogue and 50,000 people's choices",
    ),
)


def emails() -> frozenset[str]:
    """The addresses of everyone in the demo."""
    return frozenset((OPERATOR_EMAIL, *(row.email for row in DEMO_TENANTS)))


def sign_ins() -> list[tuple[str, str, str]]:
    """(e-mail, password, what it opens) for everyone in the demo."""
    rows = [(row.email, row.password, f"{row.tenant}: {row.about}") for row in DEMO_TENANTS]
    return [*rows, (OPERATOR_EMAIL, PASSWORD, "the operators' console at /console/")]
