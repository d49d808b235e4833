"""The model card as page, JSON and Markdown: one source, every section, a gap where nothing is known."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from modeling.actions.assessment import assess
from modeling.actions.cards import intervals
from modeling.models import ModelVersion
from modeling.queries.card_markdown import markdown
from tenants.scope import scope
from tests.modeling.finished import Run

REPORT = {
    "calibration": {
        "temperature": 1.31, "abstain_below": 0.42, "answered": 0.91, "accuracy_answered": 0.934, "noise_error": 4.0,
        "bins": [{"low": 0.0, "high": 0.5, "people": 31.2, "correct": 12.4}],
    },
    "fairness": [
        {
            "attribute": "sex", "gap": 0.071,
            "groups": [
                {"group": "f", "people": 310.0, "accuracy": 0.881, "positive_rate": 0.4, "noise_error": 0.01,
                 "is_small": False},
                {"group": "x", "people": 9.0, "accuracy": 0.81, "noise_error": 0.3, "is_small": True},
            ],
        }
    ],
    "sweep": {"expected_runs": 5.0, "distribution": "poisson", "chosen": {"learning_rate": 0.3}},
    "audit": {"canaries": 1000, "guesses": 200, "correct": 104, "epsilon_lower_bound": 0.2, "confidence": 0.95,
              "verdict": "no violation detected"},
}  # fmt: skip


def with_report(card: dict[str, Any]) -> dict[str, Any]:
    made = {**copy.deepcopy(card), "report": REPORT}
    return {**made, "assessment": assess(made)}


def test_it_works(finished: Run) -> None:
    path = f"/v1/models/{finished.version.name}/card"
    text = finished.api.get(path, format="markdown")
    assert text["Content-Type"].startswith("text/markdown")
    asked = finished.api.client.get(path, headers={"accept": "text/markdown"})
    assert asked.content == text.content
    body = text.content.decode()
    for heading in ("## Privacy", "## Data", "## Quality", "## Limits", "## Self-assessment", "## Training"):
        assert heading in body
    card = finished.card
    assert f"{card['privacy']['epsilon']:.4g}" in body
    assert card["data"]["commitment"]["train"]["root"] in body
    assert card["base"]["licence"] in body
    assert finished.api.get(path, format="poem").status_code == 400
    assert (
        finished.api.client.get(path, headers={"accept": "application/binary"}).json()["model"]
        == card["model"]
    )


def test_the_page_has_the_same_numbers(finished: Run) -> None:
    vera = finished.people.browser("vera")
    root = f"/t/{finished.tenant.slug}/models/{finished.version.short_id}/"
    page = vera.get(root).content.decode()
    for words in ("Model card", "All runs on these people", "Self-assessment", "receipt.json", "Apache-2.0"):
        assert words in page
    assert "Download the model" not in page  # a viewer looks, a member takes
    assert "Download the model" in finished.people.browser("bob").get(root).content.decode()
    assert vera.get(f"{root}card.json").json()["model"] == finished.version.name
    assert vera.get(f"{root}card.md").content.decode().startswith(f"# {finished.version.name}")
    assert vera.get(f"{root}receipt.json").json() == finished.receipt


def test_what_a_run_released_is_on_page_and_in_markdown(finished: Run) -> None:
    """The sections of Trained.report, put into the stored card as another run would have made it."""
    card = with_report(finished.version.card)
    text = markdown(card)
    for words in ("## Calibration", "### sex", "small: mostly noise", "## Sweep", "whole procedure", "## Audit",
                  "no violation detected"):  # fmt: skip
        assert words in text
    with scope(finished.tenant):
        rows = ModelVersion.objects.of(finished.tenant).filter(pk=finished.version.pk)
        rows.update(card=card)
        try:
            page = finished.people.browser("vera").get(
                f"/t/{finished.tenant.slug}/models/{finished.version.short_id}/"
            )
        finally:
            rows.update(card=finished.version.card)
    body = page.content.decode()
    for words in (
        "Calibration",
        "Fairness: sex",
        "7.1 points",
        "Sweep",
        "no violation detected",
        "104 of 200",
    ):
        assert words in body, words


def test_every_question_has_a_value_or_a_gap(finished: Run) -> None:
    open_card = copy.deepcopy(finished.version.card)
    open_card["privacy"] = {"mode": "off", "reason": "a test", "unit": "row", "warning": "NO",
                            "lineage": {**open_card["privacy"]["lineage"], "no_bound": True}}  # fmt: skip
    empty = {**open_card, "metrics": {}, "intervals": {}, "data": {**open_card["data"], "commitment": {}}}
    for card in (finished.version.card, with_report(finished.version.card), open_card, empty):
        rows = assess(card)
        assert len(rows) >= 15
        assert all(bool(row["value"]) != bool(row["gap"]) for row in rows)
        assert all(row["evidence"] for row in rows if row["value"])
    filled = {row["question"]: row["value"] for row in assess(with_report(finished.version.card))}
    assert filled["Bias"]
    assert filled["Empirical audit"]
    off = {row["question"]: row["gap"] for row in assess(open_card)}
    assert off["Privacy parameters"] == "Privacy was off: there is no guarantee."


def test_markdown_holds_what_users_wrote_in_its_cell(finished: Run) -> None:
    card = with_report(finished.version.card)
    card["report"]["fairness"][0]["groups"][0]["group"] = "a|b\n# not a heading <script>"
    assert "\n# not a heading" not in markdown(card)
    assert "<script>" not in markdown(card)


def test_intervals_add_noise_and_chance() -> None:
    found = intervals({"accuracy": 0.9, "noise_error": 0.01, "held_out_people": 400.0, "answer_loss": 4.0,
                       "answer_loss_noise_error": 0.1})  # fmt: skip
    half = 1.959964 * (0.01**2 + 0.9 * 0.1 / 400) ** 0.5
    assert found["accuracy"]["high"] - 0.9 == pytest.approx(half)
    assert found["answer_loss"]["low"] == pytest.approx(4.0 - 0.1959964)
    assert "held_out_people" not in found
    assert intervals({"accuracy": 0.9}) == {}


def test_markdown_of_names_is_inert(finished: Run) -> None:
    """Labels, columns and units are the customer's words: no picture, link, cell or markup is made of them."""
    hostile = "![x](https://evil.example/p.png) <b>b</b> `c` a\\|b &lt;i>\n# head"
    card = with_report(finished.version.card)
    card["privacy"] |= {
        "unit": hostile,
        "unit_means": f"all rows with the same {hostile}",
        "plain_words": [hostile],
    }
    card["data"] |= {"labels": [hostile], "features": [hostile], "declared_public": [hostile]}
    card["notes"], card["limits"] = [hostile], [hostile]
    card["report"]["fairness"][0] |= {"attribute": hostile}
    card["report"]["fairness"][0]["groups"][0]["group"] = hostile
    text = markdown(card)
    for live in ("![x]", "<b>", " `c`", "a\\|b", " &lt;i", "\n# head"):
        assert live not in text
    assert text.count("evil.example") >= 9
    assert "!\\[x\\](https" in text
