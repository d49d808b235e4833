"""Everybody's fixtures: own PostgreSQL and Valkey for the run, the cast, and clients that speak HTTP.

Tests use real commits as the restricted role (no test transaction around them), so every test makes its own tenants
and leaves its rows behind; the whole server is thrown away after the run.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

_folder = tempfile.TemporaryDirectory(prefix="cloister-test-", ignore_cleanup_errors=True)
_models = Path(os.environ.get("MODELS_DIR", ROOT / ".data" / "models"))
for _name in [name for name in os.environ if name.startswith(("STRIPE_", "EMAIL_", "CLOISTER_"))]:
    del os.environ[_name]
os.environ.update(
    DATA_DIR=_folder.name,
    MODELS_DIR=str(_models),
    OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", "1"),
    DJANGO_SETTINGS_MODULE="saas.settings",
    CLOISTER_EMBEDDED="1",
    CLOISTER_DEMO="0",
    SECRET_KEY="test-secret-key-of-this-run-only-0123456789abcdefghij",
    KEY_PEPPER="test-pepper",
    HF_HUB_OFFLINE="1",
)

from saas import embedded  # noqa: E402

_services: Any = None
_running: Any = None


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--write` lets a proof write its row into tests/proofs/README.md."""
    parser.addoption("--write", action="store_true", help="write what a proof found into its table")


def pytest_configure(config: pytest.Config) -> None:
    """Start the run's own services before settings are read."""
    global _services, _running
    _services = embedded.temporary()
    _running = _services.__enter__()
    os.environ.update(_running.environment())
    import django

    django.setup()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop them and remove the folder."""
    if _services is not None:
        _services.__exit__(None, None, None)
    _folder.cleanup()


@pytest.fixture(scope="session")
def django_db_setup(django_db_blocker: Any) -> None:
    """Migrate as the owner; the tests then connect as the restricted role."""
    from django.conf import settings
    from django.core.management import call_command

    settings.PASSWORD_HASHERS = [
        "django.contrib.auth.hashers.MD5PasswordHasher"
    ]  # a cast of four costs 1 s otherwise
    with django_db_blocker.unblock():
        call_command("migrate", database="migrator", verbosity=0, interactive=False)


@pytest.fixture(scope="session", autouse=True)
def database(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Every test may use the database, with real commits."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def superuser_url() -> str:
    """The address of the run's own database for its superuser, whom nothing of the product may be."""
    return str(_running.postgres.url_for("superuser"))


@pytest.fixture
def people() -> Any:
    """Makes tenants, members and keys with names of their own for this test."""
    from tests.make import People

    return People()


@pytest.fixture
def acme(people: Any) -> Any:
    """A medical tenant that alice owns; bob is a member, vera a viewer."""
    return people.acme


@pytest.fixture
def globex(people: Any) -> Any:
    """A finance tenant that carol owns."""
    return people.globex


@pytest.fixture
def alice(people: Any) -> Any:
    """A signed-in browser of acme's owner."""
    return people.browser("alice")


@pytest.fixture
def bob(people: Any) -> Any:
    """A signed-in browser of acme's member."""
    return people.browser("bob")


@pytest.fixture
def vera(people: Any) -> Any:
    """A signed-in browser of acme's viewer."""
    return people.browser("vera")


@pytest.fixture
def carol(people: Any) -> Any:
    """A signed-in browser of globex's owner."""
    return people.browser("carol")


@pytest.fixture
def api(people: Any) -> Any:
    """A /v1 client with acme's key, scope `all`."""
    return people.api("acme")


@pytest.fixture
def globex_api(people: Any) -> Any:
    """A /v1 client with globex's key, scope `all`."""
    return people.api("globex")


@pytest.fixture
def proof(request: pytest.FixtureRequest) -> Any:
    """Where a proof says what it found: printed, and written into tests/proofs/README.md with `--write`."""
    from tests.proofs.record import Proof

    return Proof(os.environ.get("PROOF_COMMAND", "make slow"), request.config.getoption("--write"))
