"""Sentences with planted personal data, in the ways in which people and systems write it; made from a seed."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from typing import NamedTuple

from stdnum import luhn, verhoeff
from stdnum.br import cpf
from stdnum.cn import ric
from stdnum.es import dni
from stdnum.gb import nhs
from stdnum.iso7064 import mod_11_10

Source = random.Random
_FIRST = [
    "anna", "ben", "chloe", "david", "ella", "finn", "grace", "hugo", "ines", "jonas", "karin", "liam",
    "mia", "noah", "olga", "peter",
]  # fmt: skip
_LAST = [
    "smith", "müller", "garcia", "rossi", "dubois", "jansen", "silva", "novak", "tanaka", "okafor",
    "brown", "lee", "o'neill",
]  # fmt: skip
_MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
]  # fmt: skip
_STREETS = [
    "Baker", "Maple", "Victoria", "Church", "Mill", "Station", "Park", "High", "Oak", "Washington",
]  # fmt: skip
_BBAN = {
    "DE": "18d",
    "FR": "23d",
    "ES": "20d",
    "CH": "17d",
    "AT": "16d",
    "BE": "12d",
    "DK": "14d",
    "PL": "24d",
}


class Planted(NamedTuple):
    """A sentence in which text[start:end] is personal data of `kind`."""

    kind: str
    text: str
    start: int
    end: int


def _digits(source: Source, count: int) -> str:
    return "".join(source.choice(string.digits) for _ in range(count))


def _cut(digits: str, *groups: int, by: str = " ") -> str:
    parts, at = [], 0
    for size in groups:
        parts.append(digits[at : at + size])
        at += size
    return by.join(parts)


def email(source: Source) -> str:
    first, last = source.choice(_FIRST), source.choice(_LAST).replace("ü", "ue").replace("'", "")
    local = source.choice(
        [f"{first}.{last}", f"{first[0]}{last}", f"{first}_{last}{source.randint(1, 99)}", first]
    )
    local = source.choice([local, local, local.title(), f"{local}+news"])
    domain = source.choice(
        ["example.com", "mail.example.co.uk", "st-mary.nhs.example", "firma.example.de", "bücher.example"]
    )
    return f"{local}@{domain}"


def phone(source: Source) -> str:
    area, exchange = (
        source.choice(["212", "415", "617", "312", "206"]),
        f"{source.randint(2, 9)}{_digits(source, 2)}",
    )
    if exchange[1:] == "11":
        exchange = "555"
    line, rest, three = _digits(source, 4), _digits(source, 8), _digits(source, 3)
    local = f"{source.randint(2, 8)}{rest[:6]}"
    return source.choice([
        f"({area}) {exchange}-{line}", f"{area}-{exchange}-{line}", f"{area}.{exchange}.{line}",
        f"+1 {area} {exchange} {line}", f"1-{area}-{exchange}-{line}", f"+1{area}{exchange}{line}",
        f"020 7946 {line}", f"+44 20 7946 {line}", f"07700 900{three}", f"+44 (0)20 7946 {line}",
        f"0161 496 0{three}", f"030 {local}", f"+49 30 {local}", f"0171/{local}", f"089 {local[:6]}-{three[:2]}",
        f"01 42 {_cut(rest, 2, 2, 2)}", f"+33 6 12 {_cut(rest, 2, 2, 2)}", f"06.12.{_cut(rest, 2, 2, 2, by='.')}",
        f"+34 612 {_cut(rest, 3, 3)}", f"+39 06 698 {rest[:5]}", f"+81 3-5{three}-{line}",
        f"+86 138 {_cut(rest, 4, 4)}", f"0049 30 {local}", f"+41 44 668 {_cut(rest, 2, 2)}",
        f"+91 98{three} {rest[:5]}", f"+61 2 9{three} {line}", f"(02) 9{three} {line}",
    ])  # fmt: skip


def card(source: Source) -> str:
    head, length = source.choice([("4", 16), ("51", 16), ("2221", 16), ("37", 15), ("6011", 16), ("34", 15)])
    body = head + _digits(source, length - 1 - len(head))
    number = body + luhn.calc_check_digit(body)
    by = source.choice(["", " ", "-"])
    return _cut(number, 4, 6, 5, by=by) if length == 15 else _cut(number, 4, 4, 4, 4, by=by)


def iban(source: Source) -> str:
    country = source.choice([*_BBAN, "GB", "NL"])
    if country == "GB":
        bban = source.choice(["WEST", "BARC", "NWBK"]) + _digits(source, 14)
    elif country == "NL":
        bban = source.choice(["ABNA", "RABO", "INGB"]) + _digits(source, 10)
    else:
        bban = _bban(source, country)
    number = int("".join(str(int(sign, 36)) for sign in f"{bban}{country}00"))
    whole = f"{country}{98 - number % 97:02d}{bban}"
    return source.choice([whole, " ".join(whole[at : at + 4] for at in range(0, len(whole), 4))])


def _bban(source: Source, country: str) -> str:
    """With the check digits that some countries have inside."""
    from stdnum import iban as checks

    while True:
        bban = _digits(source, int(_BBAN[country][:-1]))
        number = int("".join(str(int(sign, 36)) for sign in f"{bban}{country}00"))
        if checks.is_valid(f"{country}{98 - number % 97:02d}{bban}"):
            return bban


def national_id(source: Source) -> str:
    makers: list[Callable[[Source], str]] = [
        _ssn,
        _nhs,
        _nino,
        _cn,
        _nir,
        _idnr,
        _dni,
        _aadhaar,
        _cpf,
        _passport,
    ]
    return source.choice(makers)(source)


def _ssn(source: Source) -> str:
    digits = f"{source.randint(100, 665)}{source.randint(10, 99)}{source.randint(1000, 9999)}"
    by, name = source.choice([("-", ""), ("-", "SSN "), (" ", "SSN: "), ("", "social security number ")])
    return f"{name}|{_cut(digits, 3, 2, 4, by=by)}"


def _nhs(source: Source) -> str:
    while True:
        body = f"4{_digits(source, 8)}"
        check = nhs.checksum(body + "0")
        digits = body + str((11 - check) % 11)
        if nhs.is_valid(digits):
            by, name = source.choice([(" ", ""), (" ", "NHS no. "), ("", "NHS number: "), ("-", "NHS ")])
            return f"{name}|{_cut(digits, 3, 3, 4, by=by)}"


def _nino(source: Source) -> str:
    text = f"{source.choice(['AB', 'JC', 'PX', 'WM'])}{_digits(source, 6)}{source.choice('ABCD')}"
    return source.choice([text, " ".join([text[:2], text[2:4], text[4:6], text[6:8], text[8:]])])


def _cn(source: Source) -> str:
    body = (
        f"110105{source.randint(1950, 2005)}"
        f"{source.randint(1, 12):02d}{source.randint(1, 28):02d}{_digits(source, 3)}"
    )
    return body + ric.calc_check_digit(body + "0")


def _nir(source: Source) -> str:
    body = (
        f"{source.choice('12')}{source.randint(40, 99)}"
        f"{source.randint(1, 12):02d}75{source.randint(100, 120)}{_digits(source, 3)}"
    )
    digits = f"{body}{97 - int(body) % 97:02d}"
    return source.choice([digits, _cut(digits, 1, 2, 2, 2, 3, 3, 2)])


def _idnr(source: Source) -> str:
    while True:
        signs = source.sample(string.digits, 9)
        signs.insert(source.randint(0, 9), source.choice(signs))
        body = "".join(signs)
        digits = body + mod_11_10.calc_check_digit(body)
        from stdnum.de import idnr

        if idnr.is_valid(digits):
            return source.choice([f"Steuer-ID |{digits}", _cut(digits, 2, 3, 3, 3)])


def _dni(source: Source) -> str:
    body = _digits(source, 8)
    return f"{body}{source.choice(['', '-'])}{dni.calc_check_digit(body)}"


def _aadhaar(source: Source) -> str:
    body = f"{source.randint(2, 9)}{_digits(source, 10)}"
    return _cut(body + verhoeff.calc_check_digit(body), 4, 4, 4)


def _cpf(source: Source) -> str:
    body = _digits(source, 9)
    digits = body + cpf._calc_check_digits(body)
    return f"{_cut(digits, 3, 3, 3, by='.')}-{digits[9:]}"


def _passport(source: Source) -> str:
    name = source.choice(["passport no. ", "Passport number: ", "Reisepass "])
    return f"{name}|{source.choice(['', 'C', 'AB'])}{_digits(source, 7)}"


_BORN = [
    "DOB: ", "DOB ", "d.o.b. ", "born on ", "born ", "Date of birth: ", "geboren am ", "geb. ", "née le ", "né le ",
    "fecha de nacimiento: ", "date of birth is ", "(DOB ", "birth date ",
]  # fmt: skip
_RECORD = [
    "MRN ", "MRN: ", "MRN#", "medical record number ", "Medical Record No. ", "patient ID: ", "Patient no. ",
    "hospital number ", "chart # ", "Patienten-Nr. ", "member ID ", "(MRN ",
]  # fmt: skip


def date_of_birth(source: Source) -> str:
    day, month, year = source.randint(1, 28), source.randint(1, 12), source.randint(1925, 2015)
    word = _MONTHS[month - 1]
    written = source.choice([
        f"{year}-{month:02d}-{day:02d}", f"{day:02d}/{month:02d}/{year}", f"{month}/{day}/{year % 100:02d}",
        f"{day:02d}.{month:02d}.{year}", f"{day} {word} {year}", f"{word} {day}, {year}",
        f"{day}-{word[:3]}-{year}", f"{day}th of {word} {year}",
    ])  # fmt: skip
    return f"{source.choice(_BORN)}|{written}"


def mrn(source: Source) -> str:
    six = _digits(source, 6)
    number = source.choice([f"{six}1", f"A{six}", f"{six[:3]}-{six[2:]}", f"MR-{six}", f"00{six}"])
    return f"{source.choice(_RECORD)}|{number}"


def ip(source: Source) -> str:
    four = ".".join(str(source.randint(1, 254)) for _ in range(4))
    six = ":".join(f"{source.randint(1, 65535):x}" for _ in range(8))
    return source.choice(
        [four, four, six, f"2001:db8::{source.randint(4096, 65535):x}:{source.randint(1, 9)}"]
    )


def url(source: Source) -> str:
    scheme, word = source.choice(["https", "ftp", "postgres"]), source.choice(_FIRST)
    return f"{scheme}://{word}:{_digits(source, 5)}x@files.example.org/{source.choice(['', 'a/b.txt'])}"


def address(source: Source) -> str:
    number, street = source.randint(1, 400), source.choice(_STREETS)
    kind = source.choice(["Street", "Road", "Avenue", "Lane", "St.", "Ave", "Drive"])
    return source.choice([
        f"{number} {street} {kind}", f"{number} North {street} {kind}", f"{number}b {street} {kind}, London NW1 6XE",
        f"{number} {street} {kind}, Springfield, IL 62704", f"Hauptstraße {number}",
        f"Goethestr. {number}, 60313 Frankfurt", f"{number} rue de Rivoli, 75001 Paris", f"Calle Mayor {number}",
        f"Via Roma, {number}", f"P.O. Box {number}", f"Kerkstraat {number}", f"{number} boulevard Voltaire",
    ])  # fmt: skip


def account(source: Source) -> str:
    called = source.choice(
        ["account number ", "Account: ", "acct no. ", "a/c ", "sort code ", "账号", "银行账户："]
    )
    return f"{called}|{source.randint(1, 9)}{_digits(source, source.choice([7, 8, 9]))}"


MAKERS: dict[str, Callable[[Source], str]] = {
    maker.__name__: maker
    for maker in (email, phone, card, iban, national_id, account, date_of_birth, mrn, ip, url, address)
}
_AROUND = (
    ("", ""), ("Please write to ", " about the invoice."), ("The client left ", ", and asked for a reply."),
    ("Seen on 12 May 2024 in ward 3. ", ". BP 120/80, 250 mg twice a day."), ("contact: ", "; thanks"),
    ("Hi, it is ", " and order 55821 has not come. Refund 49.90 EUR?"), ("Ticket 2024-118: (", ") was given."),
    ("Notes:\n", "\nNext visit in 6 weeks."), ("Bitte an ", " senden."), ("He said \"", "\" twice."),
)  # fmt: skip


def planted(kind: str, count: int, seed: int = 7) -> list[Planted]:
    """`count` sentences with one piece of personal data of this kind each."""
    source = random.Random(f"{kind} {seed}")
    found = []
    for _ in range(count):
        name, _, value = MAKERS[kind](source).rpartition("|")
        before, after = source.choice(_AROUND)
        start = len(before) + len(name)
        found.append(Planted(kind, f"{before}{name}{value}{after}", start, start + len(value)))
    return found


def harmless(count: int, seed: int = 7) -> list[str]:
    """Sentences full of numbers that say nothing about a person."""
    source = random.Random(f"harmless {seed}")
    at = source.randint

    def d(count: int) -> str:
        return _digits(source, count)

    makers: list[Callable[[], str]] = [
        lambda: f"Order {at(10_000, 999_999)} shipped on {at(1, 28):02d}/0{at(1, 9)}/2024.",
        lambda: f"BP {at(90, 180)}/{at(50, 110)}, HR {at(50, 120)}, SpO2 9{at(0, 9)} %.",
        lambda: f"{at(1, 9)} x {at(1, 900)} mg, then {at(1, 9)}.{d(2)} ml/h.",
        lambda: f"The total is {at(1, 9)},{d(3)},{d(3)}.{d(2)} USD.",
        lambda: f"Code S{d(2)}.{d(3)}A, see also V{d(2)}.0{d(1)}XD.",
        lambda: f"Version {at(1, 9)}.{at(0, 20)}.{at(0, 9)} of 2024-0{at(1, 9)}-1{d(1)}T10:{at(0, 5)}5:22Z.",
        lambda: f"Sizes {at(30, 48)}, {at(30, 48)} and {at(30, 48)}; SKU {source.choice('ABC')}-{d(4)}.",
        lambda: f"From {at(8, 11)}:30 to 17:{d(1)}0, room {at(100, 400)}, floor {at(1, 9)}.",
        lambda: f"Glucose {at(4, 9)}.{d(1)} mmol/L, CRP {at(1, 200)}, Hb 1{d(1)}.{d(1)}.",
        lambda: f"{at(1, 30)} kg, {at(10, 60)} x {at(10, 60)} x {at(10, 60)} cm.",
        lambda: f"Rates rose from {at(1, 4)}.{d(2)} % to {at(5, 9)}.{d(2)} % between 19{d(2)} and 20{d(2)}.",
        lambda: f"Invoice INV-2024-{d(5)}: {at(2, 90)} pieces at {d(2)}.{d(2)} each.",
    ]  # fmt: skip
    return [source.choice(makers)() for _ in range(count)]
