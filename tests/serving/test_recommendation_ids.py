"""Ids of recommendations: what was shown can be proved by the model's own key alone, and nothing can be made up."""

from __future__ import annotations

import base64
import os
import uuid

import pytest

from modeling.serving.recommendation_ids import PLACES, BrokenId, issue, verify, version_of

KEY, VERSION, ENDPOINT = os.urandom(32), str(uuid.uuid4()), str(uuid.uuid4())
ITEMS = [f"item-{number}" for number in range(80)]


def made(count: int, *, endpoint: str = ENDPOINT) -> str:
    return issue(KEY, version=VERSION, endpoint=endpoint, items=ITEMS[:count], at=1_700_000_000)


def test_it_says_what_was_put_in() -> None:
    told = verify(made(20), KEY)
    assert (told.version, told.endpoint, told.at, told.count) == (VERSION, ENDPOINT, 1_700_000_000, 20)
    assert [told.position(item) for item in ITEMS[:20]] == list(range(1, 21))
    assert verify(made(1, endpoint=""), KEY).endpoint == ""
    assert version_of(made(3)) == VERSION


def test_an_item_that_was_not_shown_is_refused_while_all_places_are_known() -> None:
    with pytest.raises(BrokenId):
        verify(made(20), KEY).position("item-20")


def test_behind_the_last_known_place_there_is_no_place() -> None:
    told = verify(made(80), KEY)
    assert told.position(ITEMS[PLACES - 1]) == PLACES
    assert told.position(ITEMS[PLACES]) == 0


def test_another_key_opens_nothing() -> None:
    with pytest.raises(BrokenId):
        verify(made(5), os.urandom(32))


def test_no_bit_can_be_changed() -> None:
    raw = base64.urlsafe_b64decode(made(3).removeprefix("rec-") + "==")
    for at in range(len(raw)):
        changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        with pytest.raises(BrokenId):
            verify("rec-" + base64.urlsafe_b64encode(changed).decode().rstrip("="), KEY)


@pytest.mark.parametrize(
    "text", ["", "rec-", "rec-abc", "clf-" + "A" * 120, "rec-" + "A" * 120, "rec-é", "rec-" + "_" * 500]
)
def test_what_is_no_id_is_refused(text: str) -> None:
    for read in (version_of, lambda given: verify(given, KEY)):
        with pytest.raises(BrokenId):
            read(text)


def test_two_lists_never_share_an_id_or_a_digest() -> None:
    first, second = made(5), made(5)
    assert first != second
    digests = {
        verify(name, KEY).digest(kind, "item-1", "") for name in (first, second) for kind in ("click", "view")
    }
    assert len(digests) == 4
