"""The quote: money, time, privacy and what to expect, over HTTP and on the page; advice where people are too few."""

from __future__ import annotations

from typing import Any

import pytest

from modeling.actions import paces
from modeling.core import durations
from modeling.models import Job, Pace, PrivacyEntry
from modeling.plans import load_plan
from modeling.queries.paces import estimate_seconds, factor
from tenants.scope import scope
from tests.modeling.clinic import row_of, started, train, uploaded, words_csv


def _quote(api: Any, file_id: str, **body: Any) -> dict[str, Any]:
    answer = api.post("/v1/fine_tuning/quote", {"training_file": file_id, **body})
    assert answer.status_code == 200, answer.content
    return dict(answer.json())


def test_a_quote_says_what_a_run_costs_and_spends_nothing(api: Any, acme: Any, words_file: str) -> None:
    quote = _quote(api, words_file, privacy={"epsilon": 3})
    privacy = quote["privacy"]
    assert privacy["epsilon"] <= 3 < privacy["epsilon_replace_one"]
    assert privacy["budget_used"] == 0 < privacy["budget_after"] < privacy["budget_lifetime"] == 24
    assert privacy["runs_like_this"] > 3
    assert quote["seconds"] > 0
    assert "measured" in quote["billed"]
    assert 0 < quote["quality"]["expected_low"] < quote["quality"]["expected_high"]
    first, second, third = privacy["words"]
    assert "patient" in first
    assert privacy["most_often_right"]["in_or_out"] < privacy["most_often_right"]["which"] < 1
    assert "at most" in second
    assert "whatever else they know" in third
    with scope(acme):
        assert not PrivacyEntry.objects.of(acme).exists()
        assert not Job.objects.of(acme).exists()


def test_the_picture_has_the_usual_levels_and_the_one_asked_for(api: Any, words_file: str) -> None:
    points = _quote(api, words_file, privacy={"epsilon": 5})["frontier"]
    assert [point["epsilon"] for point in points] == [1, 3, 5, 8]
    assert [point["asked"] for point in points] == [False, False, True, False]
    able = [point for point in points if not point["refused"]]
    lows = [point["quality"]["expected_low"] for point in able]
    assert lows == sorted(lows)
    afters = [point["budget_after"] for point in able]
    assert afters == sorted(afters)
    assert all(point["fits"] for point in able)


def test_the_budget_after_is_what_the_ledger_then_says(api: Any, words_file: str) -> None:
    quote = _quote(api, words_file, privacy={"epsilon": 3})
    started(api, words_file, privacy={"epsilon": 3})
    ledger = api.get("/v1/privacy/ledger").json()
    assert ledger["accounts"][0]["used"] == pytest.approx(quote["privacy"]["budget_after"], abs=1e-6)
    again = _quote(api, words_file, privacy={"epsilon": 3})["privacy"]
    assert again["budget_used"] == pytest.approx(quote["privacy"]["budget_after"], abs=1e-6)
    assert again["runs_like_this"] == quote["privacy"]["runs_like_this"] - 1
    assert again["budget_after"] < 2 * quote["privacy"]["budget_after"]  # together less than the sum


def test_too_few_people_are_advised_against_with_what_is_enough(
    api: Any, acme: Any, alice: Any, tiny: Any
) -> None:
    file_id = uploaded(api, acme, words_csv(120))
    refused = api.post("/v1/fine_tuning/quote", {"training_file": file_id, "privacy": {"epsilon": 0.5}})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "too_few_units"
    assert "Bring about" in refused.json()["error"]["message"]
    answer = alice.get(f"/t/{acme.slug}/training/new/", {"level": "own", "epsilon": "0.5"})
    page = answer.content.decode()
    assert answer.status_code == 200
    assert "Better not" in page
    assert "Bring about" in page
    assert "disabled" in page[page.index("Better not") :]


def test_the_page_shows_the_picture_and_the_words(acme: Any, alice: Any, words_file: str) -> None:
    page = alice.get(f"/t/{acme.slug}/training/new/", {"level": "3"}).content.decode()
    assert "Quality against epsilon" in page
    assert page.count("frontier__range") == page.count("frontier__band") >= 2
    assert "For one patient" in page
    assert "of the time after seeing everything that leaves" in page
    assert "style=" not in page  # the content security policy


def test_a_sweep_is_quoted_as_a_whole(api: Any, words_file: str, acme: Any, alice: Any) -> None:
    one, many = (
        _quote(api, words_file, privacy={"epsilon": 8}),
        _quote(api, words_file, privacy={"epsilon": 8}, sweep={"runs": 10}),
    )
    assert many["privacy"]["epsilon"] <= 8
    assert many["seconds"] >= one["seconds"]
    assert any("10 runs on average" in note for note in many["notes"])
    page = alice.get(f"/t/{acme.slug}/training/new/", {"level": "8", "sweep": "10"}).content.decode()
    assert "10 runs on average" in page


@pytest.mark.parametrize("took", [2.0, 37.0, 900.0])
def test_after_a_finished_run_the_next_quote_is_right_within_a_quarter(
    api: Any, acme: Any, words_file: str, took: float
) -> None:
    """A real run goes through the worker; the seconds it took are then set, so the test knows no machine's speed."""
    Pace.objects.all().delete()
    done = train(acme, started(api, words_file, privacy={"epsilon": 3})["id"])
    assert done.state == Job.State.SUCCEEDED, done.error
    assert Pace.objects.filter(method="head").count() == 1
    with scope(acme):
        Job.objects.of(acme).filter(pk=done.pk).update(training_seconds=took)
    quote = _quote(api, words_file, privacy={"epsilon": 3})
    assert quote["seconds"] == pytest.approx(took, rel=0.25, abs=1)
    dearer = _quote(api, words_file, privacy={"epsilon": 8})
    assert dearer["seconds"] == pytest.approx(took, rel=0.25, abs=1)  # a run much like it


def test_other_tenants_learn_the_deployments_pace_and_nothing_else(
    api: Any, acme: Any, words_file: str
) -> None:
    Pace.objects.all().delete()
    plan = load_plan(row_of(acme, started(api, words_file, privacy={"epsilon": 3})["id"]).plan)
    fitted = durations.seconds(plan)
    assert estimate_seconds(plan) == pytest.approx(fitted)
    for _run in range(3):
        Pace.objects.create(method="head", device="cpu", planned_seconds=fitted, seconds=4 * fitted)
    assert estimate_seconds(plan) == pytest.approx(4 * fitted, rel=0.01)
    assert {field.name for field in Pace._meta.get_fields()} == {
        "id", "method", "device", "planned_seconds", "seconds", "at",
    }  # fmt: skip


def test_an_odd_run_does_not_move_the_estimate() -> None:
    usual = [(10.0, 12.0, 1.0)] * 9
    assert factor(10.0, [*usual, (10.0, 4000.0, 1.0)]) == pytest.approx(1.2)
    assert factor(10.0, []) == 1.0
    # A run of quite another length says little about this one.
    assert factor(1000.0, [(5.0, 50.0, 1.0)]) == 1.0


def test_only_whole_runs_teach_the_pace(api: Any, acme: Any, words_file: str) -> None:
    Pace.objects.all().delete()
    job = row_of(acme, started(api, words_file, privacy={"epsilon": 3})["id"])
    job.attempts = 2
    paces.learn(job, 10.0)
    job.attempts, job.training_seconds = 1, 5.0
    paces.learn(job, 10.0)
    assert not Pace.objects.exists()
    job.training_seconds = 0.0
    paces.learn(job, 10.0)
    assert Pace.objects.get().seconds == 10.0
