"""Personal data in texts: what is planted is found, what is harmless is left alone, and no text takes long."""

from __future__ import annotations

import time
from collections import Counter

import pytest
import simple_icd_10_cm as icd

from modeling.core.personal_data import KINDS, find, mask
from modeling.packs.samples.bank import bank_conversations, bank_messages
from modeling.packs.samples.shop import shop_items
from tests.core.personal_corpus import MAKERS, harmless, planted

PLANTED = 400  # sentences a kind
RECALL = 0.95
LONG = 100_000  # characters, the longest text that a request may have
_SECONDS_A_MEGABYTE = 20.0  # CPU, at most, of any text; ordinary ones take .1


def test_there_is_a_corpus_of_every_kind() -> None:
    assert set(MAKERS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_planted_is_covered(kind: str) -> None:
    missed = []
    for plant in planted(kind, PLANTED):
        covered = {at for place in find(plant.text) for at in range(place.start, place.end)}
        wanted = {at for at in range(plant.start, plant.end) if plant.text[at].isalnum()}
        if not wanted <= covered:
            missed.append(plant.text)
    assert 1 - len(missed) / PLANTED >= RECALL, missed[:10]


@pytest.mark.parametrize("kind", KINDS)
def test_most_of_it_is_called_what_it_is(kind: str) -> None:
    named = sum(any(place.kind == kind for place in find(plant.text)) for plant in planted(kind, PLANTED))
    assert named / PLANTED >= RECALL


def test_numbers_that_say_nothing_about_a_person_are_left_alone() -> None:
    wrong = [(text, find(text)) for text in harmless(3_000) if find(text)]
    assert len(wrong) <= 3, wrong[:10]


def test_no_code_of_the_icd_and_no_demo_text_has_personal_data() -> None:
    texts = [icd.get_description(code) for code in icd.get_all_codes()]
    texts += [text for row in bank_messages() for text in row]
    texts += [turn["content"] for turns in bank_conversations() for turn in turns]
    texts += [text for _, text, *_ in shop_items()]
    wrong = [(text, find(text)) for text in dict.fromkeys(texts) if find(text)]
    assert len(texts) > 98_000
    assert wrong == []


def test_masking_replaces_exactly_the_places_and_counts_them() -> None:
    text = "Mail anna@example.com or ben@example.org, card 4111 1111 1111 1111, tel +44 20 7946 0958."
    assert mask(text) == (
        "Mail [EMAIL] or [EMAIL], card [CARD], tel [PHONE].",
        {"email": 2, "card": 1, "phone": 1},
    )
    assert mask(text, kinds=("card",))[1] == {"card": 1}
    assert mask("Nothing here, 12 of 40.") == ("Nothing here, 12 of 40.", {})


def test_a_masked_text_has_nothing_more_to_find() -> None:
    for kind in KINDS:
        for plant in planted(kind, 100):
            masked, counts = mask(plant.text)
            assert sum(counts.values()) == len(find(plant.text))
            assert Counter(place.kind for place in find(masked)) == Counter(), (plant.text, masked)


def test_other_digits_dashes_and_spaces_hide_nothing() -> None:
    assert mask("card \uff14\uff11\uff11\uff11\u00a01111\u00a01111\u00a01111")[1] == {"card": 1}
    assert mask("SSN 536\u201190\u20114399")[1] == {"national_id": 1}
    assert mask("anna\uff20example.com")[1] == {"email": 1}


def test_a_wrong_check_digit_is_no_card_and_no_iban() -> None:
    sure = ("card", "iban")
    assert find("4111 1111 1111 1112", kinds=sure) == []
    assert find("DE89 3704 0044 0532 0130 01", kinds=sure) == []


def test_names_are_not_found() -> None:
    assert find("Dr Anna Smith saw Mr Ben Müller.") == []


_HOSTILE = {
    "letters": "a", "at signs": "@", "half mail": "a@", "domains": "a@a.", "digits": "1", "zeros": "0", "dashes": "1-",
    "groups": "0 1 ", "french": "01 23 45 67 89 ", "plus": "+", "codes": "+1 234 567 8901 ", "ids": "ssn 123 45 6780 ",
    "capitals": "A ", "streets": "12 Main ", "colons": "a:", "double": "1::", "born": "born on ", "months": "born jan ",
    "records": "patient id no ", "ibans": "DE89 ", "cards": "4111 ", "logins": "://a", "rue": "1 rue a b c d e f ",
    "dots": "1.", "hyphens": "a-", "brackets": "(", "spaces": " ", "calls": "call 1 ", "quotes": "'",
    "arabic": "\u0661",
    "licence": "license no A-1-", "towns": "Aa b c d e f, ", "upper": "AB1", "postcodes": "NW1 6X ",
}  # fmt: skip


@pytest.mark.parametrize("piece", _HOSTILE.values(), ids=_HOSTILE.keys())
def test_no_text_takes_long(piece: str) -> None:
    text = (piece * (LONG // len(piece) + 1))[:LONG]
    find(text[:1000])
    started = time.process_time()
    find(text)
    assert time.process_time() - started < _SECONDS_A_MEGABYTE * LONG / 1_000_000


def test_a_long_run_of_chinese_is_looked_through_once() -> None:
    """Matching the whole run at each word made time grow with its square: work is counted, not seconds."""
    import modeling.core.personal_chinese_names as names

    found = names._FIRST_TWO.match("王" * 1_000_000)
    assert found is not None
    assert len(found[0]) == 2
    assert names._FIRST_TWO.match("阿·王")[0] == "阿·"  # type: ignore[index]
