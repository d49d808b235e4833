"""An owner changes a lineage's lifetime budget: password, reason, audit entry, and never below what is spent."""

from __future__ import annotations

from typing import Any

import pytest

from modeling.models import PrivacyAccount
from tenants import audit
from tenants.models import AuditEntry
from tenants.scope import scope
from tests.make import PASSWORD
from tests.modeling.clinic import started, uploaded, words_csv


@pytest.fixture
def account(tiny: Any, api: Any, acme: Any) -> PrivacyAccount:
    """The account of a lineage with one job waiting."""
    started(api, uploaded(api, acme, words_csv(700)), privacy={"epsilon": 8})
    with scope(acme):
        return PrivacyAccount.objects.of(acme).get()


def path_of(acme: Any, account: PrivacyAccount) -> str:
    return f"/t/{acme.slug}/privacy/{account.pk}/budget/"


def form(epsilon: float = 40, **changes: str) -> dict[str, str]:
    return {"epsilon": str(epsilon), "reason": "the board agreed", "password": PASSWORD, **changes}


def lifetime(acme: Any) -> float:
    with scope(acme):
        return PrivacyAccount.objects.of(acme).get().lifetime_epsilon


def test_it_works(account: PrivacyAccount, acme: Any, alice: Any, api: Any, people: Any) -> None:
    assert lifetime(acme) == 24
    page = f"/t/{acme.slug}/privacy/"
    assert path_of(acme, account) in alice.get(page).content.decode()
    assert alice.get(path_of(acme, account)).status_code == 200
    assert alice.post(path_of(acme, account), form()).status_code == 302
    assert lifetime(acme) == 40
    with scope(acme):
        entry = AuditEntry.objects.of(acme).get(action="privacy.budget_changed")
        assert audit.verify(acme).is_whole
    assert entry.details == {"before": 24.0, "after": 40.0, "reason": "the board agreed"}
    assert entry.actor == people.user("alice").email
    shown = alice.get(page).content.decode()
    assert "from 24.0 to 40.0" in shown
    assert "the board agreed" in shown
    assert api.get("/v1/privacy/ledger").json()["accounts"][0]["lifetime_epsilon"] == 40


def test_every_card_of_the_lineage_shows_it(account: PrivacyAccount, acme: Any, alice: Any, api: Any) -> None:
    from modeling.models import Job, ModelVersion
    from tests.modeling.clinic import train

    with scope(acme):
        job = Job.objects.of(acme).get()
    train(acme, job.public_id)
    assert alice.post(path_of(acme, account), form()).status_code == 302
    with scope(acme):
        version = ModelVersion.objects.of(acme).get()
    card = api.get(f"/v1/models/{version.name}/card").json()
    assert card["privacy"]["lineage"]["budget_changes"] == []  # as it was signed
    (change,) = card["since"]["lineage"]["budget_changes"]
    assert (change["from"], change["to"], change["reason"]) == (24.0, 40.0, "the board agreed")
    assert "by" not in change
    page = alice.get(f"/t/{acme.slug}/models/{version.short_id}/").content.decode()
    assert "from 24.0 to 40.0" in page
    assert "from 24 to 40" in api.get(f"/v1/models/{version.name}/card", format="markdown").content.decode()


def test_only_an_owner_may(account: PrivacyAccount, acme: Any, bob: Any, vera: Any, carol: Any) -> None:
    path = path_of(acme, account)
    assert [who.post(path, form()).status_code for who in (bob, vera, carol)] == [403, 403, 404]
    assert [who.get(path).status_code for who in (bob, vera, carol)] == [403, 403, 404]
    assert path not in bob.get(f"/t/{acme.slug}/privacy/").content.decode()
    assert lifetime(acme) == 24


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"password": "wrong"}, "not your password"),
        ({"password": ""}, "required"),
        ({"reason": "  "}, "required"),
        ({"epsilon": "1"}, "cannot be smaller"),
        ({"epsilon": "24"}, "the budget it has"),
        ({"epsilon": "nan"}, "number"),
        ({"epsilon": "5000"}, "less than or equal"),
    ],
    ids=str,
)
def test_it_refuses(
    account: PrivacyAccount, acme: Any, alice: Any, changes: dict[str, str], words: str
) -> None:
    answer = alice.post(path_of(acme, account), {**form(), **changes})
    assert answer.status_code == 400
    assert words in answer.content.decode()
    assert lifetime(acme) == 24
    with scope(acme):
        assert not AuditEntry.objects.of(acme).filter(action="privacy.budget_changed").exists()


def test_it_may_come_down_to_what_is_spent(account: PrivacyAccount, acme: Any, alice: Any) -> None:
    assert alice.post(path_of(acme, account), form(12)).status_code == 302
    assert lifetime(acme) == 12
