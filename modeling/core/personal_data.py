"""Personal data in free text: mail, phones, cards, ids, births by their shape; names and plain dates when asked for."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from modeling.core import (
    personal_chinese,
    personal_dates,
    personal_names,
    personal_numbers,
    personal_phones,
    personal_shapes,
)

_DIGIT = re.compile(r"\d")
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2212\ufe63\uff0d"
_SPACES = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\t"
_SAME = {**dict.fromkeys(map(ord, _DASHES), "-"), **dict.fromkeys(map(ord, _SPACES), " ")}
_SAME |= {ord("\uff20"): "@", ord("\uff0e"): ".", ord("\uff0b"): "+", ord("\uff1a"): ":", ord("\uff0f"): "/"}
_OTHER_DIGIT = re.compile(r"[^\D0-9]")
Spans = Iterator[tuple[int, int]]


def _both(latin: Callable[[str], Spans], chinese: Callable[[str], Spans]) -> Callable[[str], Spans]:
    """One finder out of that for Latin script and that for Chinese."""

    def finder(text: str) -> Spans:
        if text.isascii():
            return latin(text)
        return iter(sorted([*latin(text), *chinese(text)], key=lambda span: (span[0], -span[1])))

    return finder


# In the order in which they win where two of them lie over each other.
_FINDERS: dict[str, tuple[Callable[[str], Spans], bool]] = {  # kind: (finder, whether it always has a digit)
    "url": (personal_shapes.urls, False),
    "email": (personal_shapes.emails, False),
    "iban": (personal_numbers.ibans, True),
    "card": (personal_numbers.cards, True),
    "mrn": (_both(personal_shapes.record_numbers, personal_chinese.record_numbers), True),
    "national_id": (personal_numbers.national_ids, True),
    "account": (personal_chinese.accounts, True),
    "date_of_birth": (_both(personal_shapes.births, personal_chinese.births), True),
    "ip": (personal_shapes.addresses_of_machines, True),
    "phone": (personal_phones.phones, True),
    "address": (_both(personal_shapes.addresses, personal_chinese.addresses), True),
    "date": (personal_dates.dates, True),
    "name": (personal_names.names, False),
}
ALL_KINDS: tuple[str, ...] = tuple(_FINDERS)
ASKED_FOR = ("date", "name")  # found only where a policy says so: slower, and not sure
KINDS: tuple[str, ...] = tuple(kind for kind in ALL_KINDS if kind not in ASKED_FOR)


class Found(NamedTuple):
    """One place in a text: text[start:end] looks like `kind`, one of ALL_KINDS."""

    kind: str
    start: int
    end: int


def find(text: str, *, kinds: Collection[str] = KINDS) -> list[Found]:
    """All places of these kinds in order, none over another; time grows with the text's length only."""
    plain = _plain(text)
    has_digit = _DIGIT.search(plain) is not None
    taken = _Taken()
    for kind, (finder, needs_digit) in _FINDERS.items():
        if kind not in kinds or (needs_digit and not has_digit):
            continue
        for start, end in finder(plain):
            taken.add(Found(kind, start, end))
    return taken.found


def mask(text: str, *, kinds: Collection[str] = KINDS) -> tuple[str, dict[str, int]]:
    """The text with [EMAIL], [PHONE]… in place of what was found, and how many by kind."""
    places = find(text, kinds=kinds)
    return (replace(text, places), count(places)) if places else (text, {})


def replace(text: str, places: Sequence[Found]) -> str:
    """The text with [EMAIL], [PHONE]… in these places, which are in order and not one over another."""
    if not places:
        return text
    parts = []
    done = 0
    for kind, start, end in places:
        parts += [text[done:start], f"[{kind.upper()}]"]
        done = end
    parts.append(text[done:])
    return "".join(parts)


def count(places: Collection[Found]) -> dict[str, int]:
    """How many by kind."""
    return dict(Counter(place.kind for place in places))


def _plain(text: str) -> str:
    """The text in ASCII digits, dashes and spaces, of the same length, so that places are the same."""
    if text.isascii():
        return text.replace("\t", " ")
    text = text.translate(_SAME)
    return _OTHER_DIGIT.sub(lambda found: str(unicodedata.digit(found[0])), text)


class _Taken:
    """Places kept in order; one that overlaps an earlier find is left out."""

    def __init__(self) -> None:
        self._batch: list[Found] = []
        self._sorted: list[Found] = []
        self._starts: list[int] = []
        self._kind = ""

    def add(self, place: Found) -> None:
        if place.kind != self._kind:
            self._settle()
            self._kind = place.kind
        at = bisect_right(self._starts, place.start)
        is_free = (at == 0 or self._sorted[at - 1].end <= place.start) and (
            at == len(self._sorted) or self._sorted[at].start >= place.end
        )
        last = self._batch[-1] if self._batch else None
        if is_free and (last is None or last.end <= place.start):
            self._batch.append(place)

    def _settle(self) -> None:
        """The finds of one finder come in order, and join the others when it is done."""
        if self._batch:
            self._sorted = sorted([*self._sorted, *self._batch], key=lambda place: place.start)
            self._starts = [place.start for place in self._sorted]
            self._batch = []

    @property
    def found(self) -> list[Found]:
        self._settle()
        return self._sorted
