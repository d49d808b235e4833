"""Recall and precision of personal data in English and Chinese have floors, kind by kind; a blind finder has none."""

from __future__ import annotations

import pytest

from modeling.core.personal_data import ASKED_FOR, KINDS, Found, find, mask
from modeling.core.personal_policy import Policy, PolicyWrong, of_rule
from modeling.packs import PACKS
from modeling.packs.personal import POLICIES
from tests.core.personal_scores import scored
from tests.core.personal_sentences import HELD_OUT, SEEN, Corpus

SENTENCES = 120  # of each of three registers
FEWEST = 10  # planted places from which on a kind is judged
RECALL, PRECISION = 0.97, 0.97  # of everything but names
NAMES = {  # recall, precision; measured by tests/bench/personal_data.py: .96 and .94 seen, .88 and .79 held out
    ("en", "seen"): (0.92, 0.97),
    ("zh", "seen"): (0.90, 0.97),
    ("en", "held out"): (0.82, 0.94),
    ("zh", "held out"): (0.72, 0.94),
}
CORPORA: dict[str, Corpus] = {"seen": SEEN, "held out": HELD_OUT}


@pytest.mark.parametrize("corpus", CORPORA)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_is_planted_is_found_and_little_else(language: str, corpus: str) -> None:
    found = scored(CORPORA[corpus].sentences(language, SENTENCES), CORPORA[corpus].clean[language])
    recall, precision = NAMES[language, corpus]
    assert found["name"].recall >= recall, found["name"].missed[:10]
    assert found["name"].precision >= precision, found["name"].wrong[:10]
    for kind, score in found.items():
        if kind != "name" and score.planted >= FEWEST:
            assert score.recall >= RECALL, (kind, score.missed[:10])
            assert score.precision >= PRECISION, (kind, score.wrong[:10])
    assert sum(score.planted >= FEWEST for score in found.values()) >= 4


def test_finders_that_see_nothing_or_everything_fail_the_same_measure() -> None:
    sentences = SEEN.sentences("en", 40)
    assert scored(sentences, finder=lambda text: [])["name"].recall == 0
    words = scored(sentences, SEEN.clean["en"], finder=_every_capital)["name"]
    assert words.precision < 0.8
    shapes = scored(sentences, finder=find)["name"]
    assert shapes.recall < 0.1


def _every_capital(text: str) -> list[Found]:
    places, at = [], 0
    for word in text.split(" "):
        if word[:1].isupper():
            places.append(Found("name", at, at + len(word)))
        at += len(word) + 1
    return places


def test_names_and_dates_only_where_they_are_asked_for() -> None:
    text = "Dr Anna Smith saw him on 12 May 2024."
    assert find(text) == []
    assert mask(text, kinds=ASKED_FOR) == ("Dr [NAME] saw him on [DATE].", {"name": 1, "date": 1})


def test_a_policy_counts_masks_and_refuses_by_kind() -> None:
    policy = Policy({"email": "mask", "name": "report", "card": "block"})
    seen = policy.screen("Anna Smith <anna@example.com>")
    assert (seen.text, seen.found, seen.refused) == ("Anna Smith <[EMAIL]>", {"name": 1, "email": 1}, ())
    refused = policy.screen("4111 1111 1111 1111, anna@example.com")
    assert refused.refused == ("card",)
    assert refused.text == "4111 1111 1111 1111, anna@example.com"
    assert policy.strictest == "block"
    assert policy.without_reports().kinds == ("email", "card")


def test_an_old_rule_looks_for_what_it_always_did() -> None:
    for rule, action in (("note", "report"), ("mask", "mask"), ("block", "block")):
        assert dict(of_rule(rule, {}).actions) == {
            **dict.fromkeys(KINDS, action),
            "name": "off",
            "date": "off",
        }
    assert of_rule("off", {}).kinds == ()
    assert of_rule("off", {"name": "mask"}).kinds == ("name",)
    assert of_rule("mask", {"email": "off", "card": "block"}).strictest == "block"


def test_every_vertical_has_a_policy_that_there_is() -> None:
    assert set(POLICIES) == set(PACKS)
    for actions in POLICIES.values():
        assert Policy({}).changed(actions).kinds
    with pytest.raises(PolicyWrong):
        Policy({}).changed({"shoe": "mask"})
