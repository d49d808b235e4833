"""The privacy page: the bar of runs, the forecast, the alerts, and the chain with its head to take away."""

from __future__ import annotations

import hashlib
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modeling.core import accounting, canonical
from modeling.core.types import Mechanism
from modeling.core.verify import GENESIS
from modeling.models import PrivacyAccount
from modeling.queries import ledger_pages
from modeling.queries.privacy import JobSpending, Spending, alert_of, alert_words, months_left
from tenants.scope import scope
from tests.modeling.clinic import started, train

NOW = datetime(2030, 6, 1, tzinfo=UTC)


def _spending(runs: int, lifetime: float = 24.0) -> tuple[Spending, list[JobSpending]]:
    """A lineage with so many runs of epsilon 3, one a week, the last one just now."""
    one = Mechanism("train", accounting.sigma_for(3.0, 1e-5, count=1), 1.0, 1)
    jobs = [
        JobSpending(uuid.uuid4(), NOW - timedelta(weeks=runs - 1 - number), (one,), True, 3.0)
        for number in range(runs)
    ]
    spending = Spending(
        lifetime, 1e-5, is_parallel=True, no_bound=False, mechanisms=tuple([one] * runs), jobs=runs
    )
    return spending, jobs


@pytest.mark.parametrize(
    ("used", "expected"), [(0.0, None), (11.9, None), (12.0, 0.5), (19.3, 0.8), (22.9, 0.95), (30.0, 0.95)]
)
def test_alerts_stand_at_50_80_and_95_percent(used: float, expected: float | None) -> None:
    assert alert_of(used, 24.0) == expected


def test_an_alert_says_what_is_so_and_what_a_run_would_make_so() -> None:
    assert alert_words(5.0, 24.0) == ""
    assert "50 %" in alert_words(13.0, 24.0)
    assert alert_words(13.0, 24.0, planned=14.0) == alert_words(13.0, 24.0)
    assert "This run takes" in alert_words(13.0, 24.0, planned=20.0)
    assert "80 %" in alert_words(13.0, 24.0, planned=20.0)


def test_the_forecast_is_the_arithmetic_of_the_ledger() -> None:
    """Runs go on one a week: months left are the weeks of the runs that still fit."""
    spending, jobs = _spending(9)
    months = months_left(spending, jobs, NOW)
    assert months is not None
    fit = spending.runs_like(jobs[-1].mechanisms)
    assert fit > 3
    # 9 runs in 8 weeks of history: the pace per run is 8/9 of a week.
    weeks = months * 30.44 / 7
    assert weeks == pytest.approx(fit * 8 / 9, abs=8 / 9)
    assert months_left(*_spending(2), NOW) is None  # one week says nothing about a pace
    quiet = [JobSpending(uuid.uuid4(), NOW - timedelta(days=200), jobs[0].mechanisms, True, 3.0)]
    assert months_left(spending, quiet, NOW) is None


def test_the_slices_of_the_bar_add_up_to_what_is_used(api: Any, acme: Any, words_file: str) -> None:
    train(acme, started(api, words_file, privacy={"epsilon": 3})["id"])
    started(api, words_file, privacy={"epsilon": 2})
    with scope(acme):
        (card,) = ledger_pages.account_cards(acme)
    slices = card.picture.slices
    assert [one.is_open for one in slices] == [False, True]
    assert sum(one.added for one in slices) == pytest.approx(card.used)
    assert slices[0].epsilon == pytest.approx(3.0, abs=0.05)
    lefts, widths = ([float(getattr(one, name).rstrip("%")) for one in slices] for name in ("left", "width"))
    assert lefts[0] == 0
    assert lefts[1] == pytest.approx(widths[0], abs=0.02)
    assert sum(widths) == pytest.approx(100 * card.used / card.lifetime, abs=0.05)
    assert card.forecast == ""  # a lineage of today has no pace


def test_the_page_draws_the_bar_and_warns(api: Any, acme: Any, alice: Any, words_file: str) -> None:
    started(api, words_file, privacy={"epsilon": 3})
    page = alice.get(f"/t/{acme.slug}/privacy/").content.decode()
    assert page.count("stacked__job") == 2  # the class and its open variant, of one run
    assert "lifetime privacy budget is used" not in page
    with scope(acme):
        PrivacyAccount.objects.of(acme).update(lifetime_epsilon=3.5)
    page = alice.get(f"/t/{acme.slug}/privacy/").content.decode()
    assert "More than 80 % of these people" in page
    quoted = alice.get(f"/t/{acme.slug}/training/new/", {"level": "own", "epsilon": "0.9"}).content.decode()
    assert "This run takes these people" in quoted
    assert "past 95 %" in quoted
    (account,) = api.get("/v1/privacy/ledger").json()["accounts"]
    assert account["alert_at"] == 0.8
    assert account["months_left"] is None


def test_the_chain_downloads_as_lines_that_anyone_can_check(
    api: Any, acme: Any, alice: Any, words_file: str
) -> None:
    train(acme, started(api, words_file, privacy={"epsilon": 3})["id"])
    answer = alice.get(f"/t/{acme.slug}/privacy/ledger.jsonl")
    head = alice.get(f"/t/{acme.slug}/privacy/head.json").json()
    assert "attachment" in answer.headers["Content-Disposition"]
    previous = GENESIS
    lines = answer.content.splitlines()
    for line in lines:
        entry = json.loads(line)
        assert entry["hashed"]["previous_hash"] == previous
        previous = hashlib.sha256(canonical.encode(entry["hashed"])).hexdigest()
        assert previous == entry["entry_hash"]
    assert (head["seq"], head["hash"]) == (len(lines), previous)
    page = alice.get(f"/t/{acme.slug}/privacy/").content.decode()
    assert head["hash"] in page


def test_a_stranger_gets_neither(acme: Any, carol: Any) -> None:
    for name in ("ledger.jsonl", "head.json"):
        assert carol.get(f"/t/{acme.slug}/privacy/{name}").status_code == 404
