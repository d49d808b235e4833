"""Numbers with check digits in free text: payment cards, IBANs and the national ids of some twenty-five countries."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

Spans = Iterator[tuple[int, int]]

_CARD = re.compile(
    r"(?<!\w)(?<!\d[.,])(?:[2-6]\d{3}([ -]?)\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|3[47]\d{2}([ -]?)\d{6}\2\d{5}"
    r"|3[0689]\d{2}([ -]?)\d{6}\3\d{4}|[456]\d{12})(?!\w|[-.,]\d)",
    re.ASCII,
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}[ -]?(?=[A-Za-z0-9]{4})")
_IBANS = """
    AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28
    EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26
    IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28
    NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25
    SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30
"""  # signs by country, as the registry has them
_IBAN_LENGTHS = {written[:2]: int(written[2:]) for written in _IBANS.split()}
_NEAR = 40  # characters before a number in which its name has to stand
_MARGIN = 18  # signs of an id before its first or behind its last digit
_RUN = re.compile(r"\d(?:[^\d\n]{0,5}\d){3,}")
_FEWEST_DIGITS = {
    "us.ssn": 9, "gb.nhs": 10, "cn.ric": 17, "fr.nir": 13, "de.idnr": 11, "es.dni": 8, "es.nie": 7,
    "it.codicefiscale": 7,
    "nl.bsn": 9, "in_.aadhaar": 12, "br.cpf": 11, "ca.sin": 9, "au.tfn": 9, "pl.pesel": 11, "se.personnummer": 10,
    "fi.hetu": 9, "dk.cpr": 10, "no.fodselsnummer": 11, "kr.rrn": 13, "ch.ssn": 13, "be.nn": 11, "jp.in_": 12,
    "ie.pps": 7,
    "mx.curp": 7, "za.idnr": 13,
}  # fmt: skip
_FIRST_WORD = (  # of every id without a name: most words of hashes and codes look otherwise
    r"\d+[A-Za-z]{0,2}(?!\w)|\d{5}2[AB]\d|\d{6}A\d{3}"
    r"|[A-Z]{2} ?\d\d|[XYZxyz]-?\d{7}|[A-Za-z]{6}\d\d|[A-Z]{4,5}\d{4}"
)
_BEFORE, _AFTER = r"(?<![\w+])(?<!\d[-.,/])", r"(?!\w|[-./]\d)"


_NAME_WORDS = (  # one of them is in every rule's name
    "ssn", "soc", "nhs", "身", "证", "護", "护照", "steuer", "tax", "idnr", "tin", "bsn", "burger", "sofi", "aadhaar",
    "uidai", "cpf", "sin", "tfn", "medicare", "mbi", "number", "番号", "ナンバー", "passport", "pasaporte", "reisepass",
    "passeport", "passaporto", "paspoort", "licen", "dl", "führerschein", "permis",
)  # fmt: skip


@dataclass(frozen=True)
class _Rule:
    """One way to write one country's id: `check` is the module that knows its check digits ("" where there are none);
    `name` must stand shortly before a number whose shape alone says too little."""

    shape: str
    check: str
    name: str = ""

    @property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(f"{_BEFORE}(?:{self.shape}){_AFTER}", re.ASCII)


_SSN = r"ssn|social[ _-]?security|soc\.? ?sec"
_RULES = (
    _Rule(r"\d{3}-\d{2}-\d{4}", "us.ssn"),
    _Rule(r"\d{3} ?\d{2} ?\d{4}", "us.ssn", _SSN),
    _Rule(r"(?<!\d )\d{3} \d{3} \d{4}", "gb.nhs"),
    _Rule(r"\d{3}[ -]?\d{3}[ -]?\d{4}", "gb.nhs", r"nhs"),
    _Rule(r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]", ""),
    _Rule(r"\d{17}[\dXx]", "cn.ric"),
    _Rule(r"\d{17}[\dXx]|\d{15}", "", r"身份证|身分證|证件号|居民证"),
    _Rule(r"[A-Z]{1,2}\d{7,8}", "", r"护照|護照|通行证"),
    _Rule(r"[12] ?\d{2} ?\d{2} ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}", "fr.nir"),
    _Rule(r"\d{2} \d{3} \d{3} \d{3}", "de.idnr"),
    _Rule(r"\d{11}", "de.idnr", r"steuer|tax ?id|idnr|\btin\b"),
    _Rule(r"\d{8}-?[A-Za-z]", "es.dni"),
    _Rule(r"[XYZxyz]-?\d{7}-?[A-Za-z]", "es.nie"),
    _Rule(r"[A-Za-z]{6}\d{2}[A-Za-z]\d{2}[A-Za-z]\d{3}[A-Za-z]", "it.codicefiscale"),
    _Rule(r"\d{9}|\d{4}\.\d{2}\.\d{3}", "nl.bsn", r"bsn|burger|sofi"),
    _Rule(r"\d{4}([ -])\d{4}\1\d{4}", "in_.aadhaar"),
    _Rule(r"\d{12}", "in_.aadhaar", r"aadhaar|uidai"),
    _Rule(r"[A-Z]{3}[ABCFGHLJPTK][A-Z]\d{4}[A-Z]", "in_.pan"),
    _Rule(r"\d{3}\.\d{3}\.\d{3}-\d{2}", "br.cpf"),
    _Rule(r"\d{11}", "br.cpf", r"cpf"),
    _Rule(r"\d{3}[ -]?\d{3}[ -]?\d{3}", "ca.sin", r"\bsin\b|social insurance"),
    _Rule(r"\d{3} ?\d{3} ?\d{3}", "au.tfn", r"tfn|tax file"),
    _Rule(r"[2-6]\d{3}[ -]?\d{5}[ -]?\d(?:[ -/]\d)?", "", r"medicare"),
    _Rule(r"\d[A-Z][A-Z\d]\d-?[A-Z][A-Z\d]\d-?[A-Z]{2}\d{2}", "", r"medicare|mbi"),
    _Rule(r"\d{11}", "pl.pesel"),
    _Rule(r"(?:\d{2})?\d{6}[-+]\d{4}", "se.personnummer"),
    _Rule(r"\d{6}[-+A]\d{3}[0-9A-Y]", "fi.hetu"),
    _Rule(r"\d{6}-\d{4}", "dk.cpr"),
    _Rule(r"\d{6} ?\d{5}", "no.fodselsnummer"),
    _Rule(r"\d{6}-\d{7}", "kr.rrn"),
    _Rule(r"756\.?\d{4}\.?\d{4}\.?\d{2}", "ch.ssn"),
    _Rule(r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", "be.nn"),
    _Rule(r"\d{4}[ -]?\d{4}[ -]?\d{4}", "jp.in_", r"my ?number|個人番号|マイナンバー"),
    _Rule(r"\d{7}[A-W][A-IW]?", "ie.pps"),
    _Rule(r"[A-Z]{4}\d{6}[HM][A-Z]{5}[A-Z\d]\d", "mx.curp"),
    _Rule(r"\d{13}", "za.idnr"),
    _Rule(r"(?=[A-Z\d]{0,5}\d{4})[A-Z\d]{6,9}", "", r"passport|pasaporte|reisepass|passeport|passaporto|paspoort"),
    _Rule(
        r"(?=[A-Z\d-]{0,15}\d{4})[A-Z\d](?:-?[A-Z\d]){5,17}", "",
        r"licen[cs]e (?:no|number|#)|dl ?#|führerschein|permis de conduire",
    ),
)  # fmt: skip


@cache
def _compiled() -> tuple[tuple[int, re.Pattern[str], Any, re.Pattern[str] | None], ...]:
    """Rules ready to use, made with the first text: the modules of check digits cost some megabytes.

    Each with the fewest digits that a number of its country has, so that a date costs next to nothing.
    """
    return tuple(
        (
            _FEWEST_DIGITS.get(rule.check, 4) if rule.check else 4,
            rule.pattern,
            import_module(f"stdnum.{rule.check}") if rule.check else None,
            re.compile(rule.name, re.IGNORECASE) if rule.name else None,
        )
        for rule in _RULES
    )


@cache
def _starts() -> re.Pattern[str]:
    """Where an id whose shape says enough may start: one pass in place of one for each rule."""
    shapes = (rule.shape.replace("([ -])", "[ -]").replace(r"\1", "[ -]") for rule in _RULES if not rule.name)
    return re.compile(f"{_BEFORE}(?={_FIRST_WORD})(?=(?:{'|'.join(shapes)}){_AFTER})", re.ASCII)


def national_ids(text: str) -> Spans:
    """National ids, tax and social security numbers, passports and driving licences."""
    small = text.lower()
    is_named = any(word in small for word in _NAME_WORDS)
    spans = [
        span for start, end, digits in _dense(text) for span in _ids_in(text, start, end, digits, is_named)
    ]
    yield from sorted(set(spans), key=lambda span: (span[0], -span[1]))


def _dense(text: str) -> Iterator[tuple[int, int, int]]:
    """(start, end, digits) of each run of four digits or more with at most five other signs between two of them."""
    for found in _RUN.finditer(text):
        yield found.start(), found.end(), sum(map(found[0].count, "0123456789"))


def _ids_in(text: str, start: int, end: int, digits: int, is_named: bool = True) -> Iterator[tuple[int, int]]:
    """Ids in a run of digits; without any rule's name in the text, only those whose shape says enough."""
    left, right = max(0, start - _MARGIN), min(len(text), end + _MARGIN)
    starts = [found.start() for found in _starts().finditer(text, left, right)]
    if not starts and not is_named:
        return
    before = text[max(0, left - _NEAR) : end]
    for fewest, pattern, check, name in _compiled():
        if digits < fewest:
            continue
        if name is None:
            matches = _matches(pattern, text, starts, right)
        elif is_named and name.search(before) is not None:
            matches = pattern.finditer(text, left, right)
        else:
            continue
        for found in matches:
            if name is not None and not name.search(text, max(0, found.start() - _NEAR), found.start()):
                continue
            if check is None or check.is_valid(found[0].replace(" ", "")):
                yield found.span()


def _matches(
    pattern: re.Pattern[str], text: str, starts: Sequence[int], right: int
) -> Iterator[re.Match[str]]:
    """What `finditer` gives, looked for at these places only."""
    done = 0
    for start in starts:
        if start >= done and (found := pattern.match(text, start, right)) is not None:
            done = found.end()
            yield found


def cards(text: str) -> Spans:
    """Payment cards of 13 to 19 digits with a right check digit."""
    for found in _CARD.finditer(text):
        if _luhn(found[0]):
            yield found.span()


@cache
def _luhn_module() -> Any:
    return import_module("stdnum.luhn")


def _luhn(written: str) -> bool:
    digits = written.replace(" ", "").replace("-", "")
    return bool(_luhn_module().is_valid(digits)) and len(set(digits)) > 1


@cache
def _iban_module() -> Any:
    return import_module("stdnum.iban")


def ibans(text: str) -> Spans:
    """IBANs with or without spaces, of a country's own length and with right check digits."""
    done = 0
    for found in _IBAN.finditer(text):
        if found.start() < done:
            continue
        end = _iban_end(text, found.start())
        if end is not None:
            done = end
            yield found.start(), end


def _iban_end(text: str, start: int) -> int | None:
    """Where the IBAN that starts here ends; None when there is none."""
    wanted = _IBAN_LENGTHS.get(text[start : start + 2].upper(), 0)
    signs: list[str] = []
    for at in range(start, min(len(text), start + 2 * wanted)):
        sign = text[at]
        if sign.isascii() and sign.isalnum():
            signs.append(sign)
        elif sign not in " -" or text[at - 1] in " -":
            return None
        if len(signs) == wanted:
            is_whole = not text[at + 1 : at + 2].isalnum()
            return at + 1 if is_whole and _iban_module().is_valid("".join(signs)) else None
    return None
