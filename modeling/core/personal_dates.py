"""Whole dates in free text, in digits and in words, English, European and Chinese; a year or a month alone is none."""

from __future__ import annotations

import re
from collections.abc import Iterator

Spans = Iterator[tuple[int, int]]

_MONTH = (
    r"(?:jan(?:uary|uar|vier)?|feb(?:ruary|ruar)?|f[ée]v(?:rier)?|mar(?:ch|s|zo)?|märz|apr(?:il|ile)?|avr(?:il)?|may|mai|mayo"
    r"|maggio|june?|juni|juin|junio|giugno|july?|juli|juillet|julio|luglio|aug(?:ust)?|ao[ûu]t|agosto|sept?(?:ember|embre|iembre)?"
    r"|o[ck]t(?:ober|obre|ubre)?|ottobre|nov(?:ember|embre|iembre)?|de[cz](?:ember|embre)?|déc(?:embre)?|dic(?:iembre|embre)?"
    r"|enero|gennaio|febrero|febbraio|abril)\b\.?"
)
_BEGINNINGS = (  # of months' names
    "jan", "feb", "fev", "fév", "mar", "mär", "apr", "avr", "may", "mai", "mag", "jun", "jui", "giu", "jul", "lug",
    "aug", "aou", "aoû", "ago", "sep", "oct", "okt", "ott", "nov", "dec", "dez", "déc", "dic", "ene", "gen", "abr",
)  # fmt: skip
_YEAR = r"(?:19|20)\d{2}"
_WRITTEN = re.compile(
    rf"(?<![A-Za-z0-9])(?:(?:(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th|\.)?[ -]{{1,2}}(?:of |de )?){_MONTH}(?:,?["
    rf" -](?:de )?(?:{_YEAR}|\d{{2}}(?![\d:.,%])))?"
    rf"|{_MONTH} (?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?(?!\d|[:.,]\d|%)(?:,? {_YEAR})?)(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_DAY, _NUMBER = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])"
_DIGITS = re.compile(
    rf"(?<![A-Za-z0-9.,/-])(?:{_YEAR}([-/.]){_NUMBER}\1{_DAY}|{_DAY}([-/.]){_NUMBER}\2(?:{_YEAR}|\d{{2}})"
    rf"|{_NUMBER}([-/]){_DAY}\3(?:{_YEAR}|\d{{2}}))(?![A-Za-su-z0-9_/%-]|[.,]\d)"
)
_CHINESE = re.compile(
    r"(?<!\d)(?:(?:(?:19|20)?\d{2}|民国\d{1,3}) ?年 ?)?(?:1[0-2]|0?[1-9]) ?月 ?(?:[12]\d|3[01]|0?[1-9]) ?[日号]"
    r"|[一二][零〇一二三四五六七八九]{3}年十?[一二三四五六七八九十]月[一二三]?十?[一二三四五六七八九]?[日号]"
)


def dates(text: str) -> Spans:
    """A day with its month, with or without the year."""
    found = [one.span() for one in _DIGITS.finditer(text)]
    small = text.lower()
    if any(beginning in small for beginning in _BEGINNINGS):
        found += [one.span() for one in _WRITTEN.finditer(text)]
    if "月" in text:
        found += [one.span() for one in _CHINESE.finditer(text)]
    yield from sorted(found, key=lambda span: (span[0], -span[1]))
