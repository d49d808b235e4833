"""Phone numbers in free text: international ones by shape, national ones when a country's plan has them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

Spans = Iterator[tuple[int, int]]

_RUN = re.compile(r"(?<![\w.,+#-])(?:\+|\()?\d[\d ().\-/+]*\d", re.ASCII)  # Chinese signs may stand before it
_GROUP = re.compile(r"\d+")
_NAMED = re.compile(
    r"\b(?:tel|telephone|phone|mobile|mob|cell|fax|call|calls|called|ring|rang|dial|whatsapp|sms|text me|telefon|handy"
    r"|mobil|mobilnummer|rufnummer|tél|téléphone|portable|teléfono|móvil|celular|llame|cellulare|telefono|telefoon"
    r"|reach me|call-?back|電話|电话|手机)(?!\w)[^\d\n]{0,25}\Z",
    re.IGNORECASE,
)
_NAMED_CHINESE = re.compile(
    r"(?:电话|電話|手机|手機|联系方式|座机|致电|拨打|来电|微信|传真|热线)[^\d\n]{0,12}\Z"
)
_NEAR = 45
_TRUNK = (
    "GB",
    "DE",
    "FR",
    "IT",
    "NL",
    "AU",
    "IN",
    "JP",
    "CH",
    "AT",
    "BE",
    "SE",
    "CN",
    "ZA",
    "NZ",
    "IE",
    "FI",
    "KR",
)
_MOBILE = re.compile(r"1[3-9]\d{9}|07\d{9}|0[67]\d{8}|01[5-7]\d{8,9}|04\d{8}")
_FEWEST, _MOST = 7, 15  # digits
_CHECKS_A_THOUSAND = (
    40  # looks into numbering plans per 1,000 characters; what is not looked up counts as a phone
)


def phones(text: str) -> Spans:
    """Numbers with a country code, national numbers in a country's plan, and what is called a phone number."""
    plans = _Plans(budget=200 + len(text) * _CHECKS_A_THOUSAND // 1000)
    for run in _RUN.finditer(text):
        if run.end() - run.start() < _FEWEST:
            continue
        groups = [
            (run.start() + found.start(), run.start() + found.end()) for found in _GROUP.finditer(run[0])
        ]
        yield from _of_run(text, groups, plans)


def _of_run(text: str, groups: Sequence[tuple[int, int]], plans: _Plans) -> Spans:
    """Phones among neighbouring groups of digits, from the left, the longest first."""
    at = 0
    while at < len(groups):
        last = _longest(text, groups, at, plans)
        if last is None:
            at += 1
            continue
        start = groups[at][0]
        while start and text[start - 1] in "+(":
            start -= 1
        end = groups[last][1]
        yield start, end + (text[end : end + 1] == ")")
        at = last + 1


def _longest(text: str, groups: Sequence[tuple[int, int]], at: int, plans: _Plans) -> int | None:
    """The last group of the longest phone that starts with group `at`."""
    digits = 0
    parts: list[str] = []
    candidates: list[tuple[int, list[str]]] = []
    for number in range(at, min(len(groups), at + 7)):
        first, end = groups[number]
        if number > at and (first - groups[number - 1][1] > 3 or "+" in text[groups[number - 1][1] : first]):
            break
        parts.append(text[first:end])
        digits += end - first
        if digits > _MOST + 2:
            break
        if digits >= _FEWEST:
            candidates.append((number, list(parts)))
    if not candidates:
        return None
    start = groups[at][0]
    is_international = text[max(0, start - 2) : start].strip("( ").endswith("+")
    is_first = at == 0 or start - groups[at - 1][1] > 1
    is_named = is_first and _is_named(text[max(0, start - _NEAR) : start])
    for number, found in reversed(candidates):
        if _is_phone(found, plans, is_international=is_international, is_first=is_first, is_named=is_named):
            return number
    whole = [number for number, found in candidates if 8 <= len("".join(found)) <= _MOST]
    return (
        whole[-1] if is_international and whole else None
    )  # a + and as many digits: in no plan, but meant as one


def _is_named(before: str) -> bool:
    """Whether the words before a number call it a phone's."""
    found = _NAMED.search(before) or (None if before.isascii() else _NAMED_CHINESE.search(before))
    return found is not None


def _is_phone(
    parts: Sequence[str], plans: _Plans, *, is_international: bool, is_first: bool, is_named: bool
) -> bool:
    digits = "".join(parts)
    if is_international or (is_first and digits.startswith("00") and len(digits) > 9):
        number = digits if is_international else digits[2:]
        return 8 <= len(number) <= _MOST and plans.has_country(number) and plans.has(f"+{number}", ())
    if digits.startswith("00"):
        return False
    if not _FEWEST <= len(digits) <= _MOST or _is_date(parts):
        return False
    if is_named:
        return True
    if len(parts) == 1:
        return _MOBILE.fullmatch(digits) is not None and plans.has(digits, _TRUNK)
    shape = tuple(map(len, parts))
    if shape == (3, 4, 4) and _MOBILE.fullmatch(digits):
        return plans.has(digits, ("CN",))
    if shape in ((3, 3, 4), (1, 3, 3, 4)) and (len(shape) == 3 or digits[0] == "1"):
        return plans.has(digits, ("US",))
    if digits[0] == "0" and 9 <= len(digits) <= 12 and len(parts[0]) > 1:
        return plans.has(digits, _TRUNK)
    return False


def _is_date(parts: Sequence[str]) -> bool:
    """2024 05 17, 17 05 2024, 17 05 24, perhaps with a time behind."""
    shape = tuple(min(len(part), 5) for part in parts[:3])
    if len(shape) < 3 or len(parts) > 6:
        return False
    day_first = shape[0] <= 2 and shape[1] <= 2 and parts[2][:2] in ("19", "20") and shape[2] == 4
    return day_first or (shape[0] == 4 and parts[0][:2] in ("19", "20") and shape[1] <= 2 and shape[2] <= 2)


class _Plans:
    """The countries' numbering plans, asked a bounded number of times for one text."""

    def __init__(self, budget: int) -> None:
        self._budget = budget

    def has_country(self, number: str) -> bool:
        """Whether a number without its + starts with a country's code."""
        codes = _library().COUNTRY_CODE_TO_REGION_CODE
        return any(number[:length].isdigit() and int(number[:length]) in codes for length in (1, 2, 3))

    def has(self, number: str, regions: Sequence[str]) -> bool:
        """Whether one of the regions has this number; true once the budget is used up: then the shape decides."""
        for region in regions or (None,):
            if self._budget <= 0:
                return True
            self._budget -= 1
            if _is_valid(number, region):
                return True
        return False


@cache
def _library() -> Any:
    """Loaded with the first number, a country's plan with that country's first."""
    import phonenumbers

    return phonenumbers


def _is_valid(number: str, region: str | None) -> bool:
    library = _library()
    try:
        return bool(library.is_valid_number(library.parse(number, region)))
    except library.NumberParseException:
        return False
