"""Personal data that its shape or the words before it give away: mail, logins, births, records, addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

Spans = Iterator[tuple[int, int]]

_LOCAL = re.compile(r"[\w!#$%&*+/=?^`{|}~-][\w.!#$%&'*+/=?^`{|}~-]{0,63}\Z")
_DOMAIN = re.compile(r"(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w-])")
_LOGIN = re.compile(r"://[^\s/@:?#]{1,64}(?::[^\s/@]{0,128})?@[^\s\"'<>)\]]{1,256}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,15}\Z")
_V4 = re.compile(r"(?<![\w.])\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?!\w|\.\d)", re.ASCII)
_V6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]{1,40}(?:\d{1,3}\.\d{1,3}\.\d{1,3})?(?![\w:])")
_VERSION = re.compile(r"\b(?:v|ver|version|release|section|clause|firmware)\.? ?\Z", re.IGNORECASE)

_MONTH = (
    r"(?:jan|feb|mar|mär|apr|may|mai|maj|mei|maio|mag|jun|jui|jul|giu|lug|aug|aou|aoû|ago|sep|set|okt|oct|out|ott|nov"
    r"|dec|dez|déc|dic|gen|ene|fév|fev|avr|abr)[^\W\d_]{0,7}\.?"
)
_DATE = (
    r"(?:\d{4} ?[-/.年] ?\d{1,2} ?[-/.月] ?\d{1,2}日?"
    r"|\d{1,2}[-/. ]{1,2}\d{1,2}[-/. ]{1,2}\d{2,4}"
    rf"|\d{{1,2}}(?:st|nd|rd|th|er|\.)?[ -](?:of |de )?{_MONTH}(?: de| del)?,?[ -]\d{{2,4}}"
    rf"|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}}"
    r"|(?<=\D)(?:19|20)\d{6})(?!\d)"
)
_BIRTH = (
    r"(?:\b(?:d\.? ?o\.? ?b\b\.?|date[ _]of[ _]birth|birth[ _-]?da(?:te|y)|born|birthdate|geboren|geb\.|geburtsdatum"
    r"|geburtstag|née?|née? le|date de naissance|fecha de nacimiento|nacid[oa]|nat[oa]|data di nascita"
    r"|data de nascimento|geboortedatum|geboren op|fødselsdato|födelsedatum)(?!\w)|出生日期|生年月日)"
)
_BIRTH_WORDS = ("birth", "born", "dob", "d.o", "d o", "d. o", "gebo", "geb.", "geburt", "né", "naiss", "naci",
    "nat", "nasc", "fød",
                "föd", "出生", "生年")  # fmt: skip
_BORN = re.compile(
    rf"{_BIRTH}[^\w\n]{{0,4}}(?:(?:is|was|on|am|le|el|il|em|op|den|the|at|in|of|del|:)[^\w\n]{{1,3}}){{0,2}}"
    rf"({_DATE})",
    re.IGNORECASE,
)
_BORN_AFTER = re.compile(rf"(?<!\d)({_DATE})[^\w\n]{{1,3}}(?:d\.?o\.?b\b|date of birth)", re.IGNORECASE)

_RECORD = re.compile(
    r"\b(?:MRN|PMRN|EMPI|IPP|NHC|URN|UHID|medical[ _]record|health[ _]record|hospital|patient(?:en)?|chart|case[ _]file"
    r"|member|beneficiary|policyholder|krankenakte|fall|akten|dossier(?: patient| médical)?|historia cl[ií]nica"
    r"|cartella clinica|pati[eë]nt)"
    r"(?:[ _.\-]{0,2}(?:record|id|identifier|identification|number|numbers|no|num|nr|nummer|zeichen|n°|nº|#)\b\.?"
    r"|[ _.\-]{0,2}(?:n°|nº|#)){0,2}"
    r"[ :#=(]{1,4}(?:(?:is|was|of|:)[ :#]{1,2})?"
    r"([A-Z]{0,5}[-/ ]?\d[\dA-Z]{1,11}(?:[-/.]\d[\dA-Z]{1,8}){0,3})(?!\w)",
    re.IGNORECASE,
)
_RECORD_SURE = re.compile(
    r"(?:MRN|EMPI|IPP|NHC|UHID|URN|record|\bid\b|identif|number|\bno\b|num\b|\bnr\b|nummer|zeichen|n°|nº|#"
    r"|cl[ií]nica|dossier)",
    re.IGNORECASE,
)
_RECORD_DIGITS = 4
_RECORD_WORDS = ("mrn", "empi", "ipp", "nhc", "urn", "uhid", "record", "hospital", "patient", "chart", "case",
    "member", "beneficiary",
                 "policyholder", "krankenakte", "fall", "akten", "dossier", "historia", "cartella",
                 "patië")  # fmt: skip

_POSTCODE = r"[A-Z]{1,2}\d[A-Z\d]? ?\d[ABD-HJLNP-UW-Z]{2}(?!\w)"
_TOWN = (
    r"(?:,? ?(?:Apt|Apartment|Unit|Suite|Ste|Flat|#)\.? ?\w{1,6})?"
    rf"(?:, ?[^\W\d_][\w .'-]{{1,30}}){{0,2}}(?:,? (?:{_POSTCODE}|[A-Z]{{2}},? \d{{5}}(?:-\d{{4}})?|\d{{4,5}}\b))"
)
_AHEAD = re.compile(  # 12 Baker Street
    r"(?<![\w.,/-])\d{1,5}[A-Za-z]?,? (?:(?:[A-Z][\w'-]{0,20}|\d{1,3}(?:st|nd|rd|th)|[NSEW])\.? ){1,4}"
    r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Terrace|Way|Crescent|Close"
    rf"|Gardens|Square|Sq|Parkway|Pkwy|Highway|Hwy|Circle|Cir|Row|Mews|Walk|Grove)\b\.?(?:{_TOWN})?"
)
_BEHIND = re.compile(  # Hauptstraße 5, Kerkstraat 12
    r"(?<!\w)(?:[^\W\d_][\w.-]{0,30} ){0,2}?[A-ZÄÖÜ][\w-]{0,30}"
    r"(?:straße|strasse|str\.|weg|platz|allee|gasse|damm|ufer|straat|laan|plein|gracht|vägen|gatan)"
    rf" \d{{1,4}} ?[a-z]?(?!\w)(?:,? \d{{4,5}}(?: [A-Z]{{2}})? [A-ZÄÖÜ][\w-]{{1,30}})?(?:{_TOWN})?"
)
_ROMANCE = re.compile(  # 5 rue de Rivoli; Calle Mayor 12; Via Roma, 3
    r"(?<![\w.,/-])(?:\d{1,4}(?: ?(?:bis|ter))?,? (?:rue|avenue|boulevard|place|chemin|impasse|quai|allée)"
    r"(?: [^\W\d_][\w'’-]{0,20}){1,5}"
    r"|(?:Calle|Avenida|Avda\.|Paseo|Plaza|Via|Viale|Piazza|Corso|Rua|Largo)(?: [^\W\d_][\w'’-]{0,20}){1,5},?"
    r" ?(?:nº ?|n\. ?)?\d{1,4})"
    r"(?:,? \d{5} [^\W\d_][\w'-]{1,30})?",
)
_BOX = re.compile(r"\bP\.? ?O\.? ?Box \d{1,6}\b", re.IGNORECASE)
_BRITISH = re.compile(rf"(?<![\w-])(?:[^\W\d_][\w .'-]{{0,30}}, ?)?(?-i:{_POSTCODE})")


_POSTCODE_ALONE = re.compile(rf"(?<![\w-]){_POSTCODE}")
_BY_WORDS = (  # patterns that are only tried where one of these words is
    (_BEHIND, ("straße", "strasse", "str.", "weg ", "platz", "allee", "gasse", "damm", "ufer", "straat", "laan",
    "plein", "gracht",
               "vägen", "gatan")),
    (_ROMANCE, ("rue ", "avenue ", "boulevard ", "place ", "chemin ", "impasse ", "quai ", "allée ", "calle ",
    "avenida ", "avda",
                "paseo ", "plaza ", "via ", "viale ", "piazza ", "corso ", "rua ", "largo ")),
    (_BOX, ("box",)),
)  # fmt: skip


def emails(text: str) -> Spans:
    """name@example.com: from each @ to both sides."""
    at = text.find("@")
    while at >= 0:
        local = text[max(0, at - 64) : at]
        domain = _DOMAIN.match(text, at + 1)
        if domain is not None and (before := _local(local)) is not None:
            yield at - len(local) + before, domain.end()
            at = text.find("@", domain.end())
        else:
            at = text.find("@", at + 1)


def _local(before: str) -> int | None:
    """Where the part in front of the @ starts; None when there is none. One step a character."""
    at = len(before)
    while at and (before[at - 1].isalnum() or before[at - 1] in "_.!#$%&'*+/=?^`{|}~-"):
        if "\u4e00" <= before[at - 1] <= "\u9fff" and at < len(before):
            break  # 邮箱anna@example.com
        at -= 1
    while at < len(before) and before[at] in "'./=|`{":
        at += 1
    return at if at < len(before) else None


def urls(text: str) -> Spans:
    """URLs that carry a user's name or password."""
    if "://" not in text or "@" not in text:
        return
    for found in _LOGIN.finditer(text):
        scheme = _SCHEME.search(text[max(0, found.start() - 16) : found.start()])
        if scheme is not None:
            yield found.start() - len(scheme[0]), found.end()


def addresses_of_machines(text: str) -> Spans:
    """IPv4 and IPv6 addresses."""
    if text.count(".") >= 3:
        for found in _V4.finditer(text):
            is_version = _VERSION.search(text[max(0, found.start() - 10) : found.start()])
            if is_version is None and all(int(part) < 256 for part in found[0].split(".")):
                yield found.span()
    if text.count(":") >= 2:
        yield from _v6(text)


def _v6(text: str) -> Spans:
    for found in _V6.finditer(text):
        written = found[0].rstrip(":") if not found[0].endswith("::") else found[0]
        if written.count(":") < 2 or not any(sign.isdigit() for sign in written) or len(written) < 6:
            continue
        try:
            ipaddress.IPv6Address(written)
        except ValueError:
            continue
        yield found.start(), found.start() + len(written)


def births(text: str) -> Spans:
    """A date right after (or before) words that call it a date of birth; other dates are left alone."""
    small = text.lower()
    if not any(word in small for word in _BIRTH_WORDS):
        return
    spans = [found.span(1) for pattern in (_BORN, _BORN_AFTER) for found in pattern.finditer(text)]
    yield from sorted(spans)


def record_numbers(text: str) -> Spans:
    """Numbers that are called a medical record's, a patient's or a member's."""
    small = text.lower()
    if not any(word in small for word in _RECORD_WORDS):
        return
    for found in _RECORD.finditer(text):
        digits = sum(sign.isdigit() for sign in found[1])
        if digits >= _RECORD_DIGITS and _RECORD_SURE.search(text, found.start(), found.start(1)):
            yield found.span(1)


def addresses(text: str) -> Spans:
    """Street and number, post box, and British postcodes."""
    small = text.lower()
    patterns = [pattern for pattern, words in _BY_WORDS if any(word in small for word in words)]
    if _POSTCODE_ALONE.search(text) is not None:
        patterns.append(_BRITISH)
    spans = [found.span() for pattern in (_AHEAD, *patterns) for found in pattern.finditer(text)]
    yield from sorted(spans, key=lambda span: (span[0], -span[1]))
