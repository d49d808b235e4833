"""People's names in running text of Latin script: by Faker's lists, titles and the words in front of a name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from modeling.core.personal_chinese_names import chinese_names
from modeling.core.personal_lexicon import Lexicon, latin

Spans = Iterator[tuple[int, int]]

_UPPER = "A-ZÀ-ÖØ-ÞĀĂĄĆČĎĐĒĘĚĞİĹĽŁŃŇŌŐŘŚŞŠŢŤŪŮŰŹŻŽ"
_WORD = rf"[{_UPPER}][^\W\d_]*(?:['’][{_UPPER}][^\W\d_]+)?(?:-[{_UPPER}][^\W\d_]+)*"
_ITEM = rf"(?:(?:Mrs?|Ms|Dr|Prof|Sr|Sra|Mme|Mlle|[{_UPPER}])\.(?!\w)|{_WORD})"
_PARTICLE = r"(?:van|von|de|der|den|del|della|di|da|dos|du|la|le|bin|ibn|al|el|ter|zu) "
_RUN = re.compile(rf"(?<![\w@.#/\\-]){_ITEM}(?: (?:{_PARTICLE}){{0,2}}{_ITEM}){{0,5}}(?![@\\\d_])")
_CAPITAL = re.compile(f"[{_UPPER}]")
_TOKEN = re.compile(_ITEM)
_TITLES_SAID = (
    "Mr Mrs Ms Miss Mx Dr Doctor Prof Professor Sir Dame Lady Lord Rev Nurse Sister Matron Herr Frau Monsieur"
    " Madame Mme"
    " Mlle Signor Signora Señor Señora Sr Sra Senhor Senhora Mevrouw Meneer"
)
_TITLES = frozenset(_TITLES_SAID.split())
_CUES_SAID = (
    "name names surname forename firstname lastname fullname named patient pt client customer member guest"
    " shopper buyer"
    " cardholder holder policyholder beneficiary payee recipient addressee applicant borrower guarantor guardian mother"
    " father mum dad wife husband son daughter sister brother aunt uncle niece nephew partner spouse carer caregiver"
    " neighbour neighbor friend colleague kin attn fao cc dear hi hello hey regards thanks sincerely faithfully cheers"
    " signed i'm i’m it's it’s c/o call calls tell told ask asked contact inform informed email ring page paged bleep"
    " agent cashier advisor adviser teller surgeon consultant physician gp midwife therapist technician clerk"
)
_CUES = frozenset(_CUES_SAID.split())
_DONE_BY = (
    "seen reviewed referred examined admitted assessed discharged witnessed completed written placed ordered requested"
    " reported approved handled prepared submitted sent made collected accompanied assisted booked served"
)
_SENT = (
    "money amount call calls message letter note request referral complaint payment transfer refund invoice"
    " parcel delivery"
    " order appointment follow-up gift card present pick-up visit cheque loan deposit prescription report"
    " feedback euro euros"
    " pound pounds dollar dollars eur usd gbp"
)
_TOWARDS = frozenset(("from", "for", "to", "by", "with", "of"))
_CUES_OF_TWO = frozenset(
    ["i am", "this is", "it is", "spoke to", "spoke with", "spoken to", "spoken with", "speak to", "speak with",
    "met with",
     "discussed with", "addressed to", "deliver to", "delivered to", "payable to", "behalf of", "name of", "care of",
     *(f"{verb} by" for verb in _DONE_BY.split()), *(f"{noun} {word}" for noun in _SENT.split() for word in _TOWARDS)]
)  # fmt: skip
_WEAK = _TOWARDS | frozenset(("call", "calls", "hi", "hello", "hey", "is", "it's", "it’s"))
_ARTICLES = frozenset(("the", "a", "an"))
_PLACED = frozenset(("in", "at", "near", "visit", "visiting", "via", "through"))
_DOERS = frozenset(
    ("by", "with", "saw", "for", "met", "and")
)  # before two words that no list has: a person's, mostly
_NEAR = 40
_BEHIND = re.compile(r"(?:['’]s)?[ \n-]([^\W\d_]+)")
_ACTS = re.compile(
    r"(?:,? (?:dob|d\.o\.b|aged?|born|mrn|nhs|male|female|\d{1,3}[ -]?(?:yo|y/o|years?|yrs?)|who)\b|,? \(?\d{2}[MFmf]\b"
    r"|(?:,| has| had| is| was| also| has been| had been)? (?:told|said|says|called|phoned|rang|emailed|wrote"
    r"|asked|asks|reports?|reported|attended"
    r"|complain(?:s|ed)|complaining|returned|paid|opened|denies|denied|presented|presents|admitted|discharged|feels|felt|fell"
    r"|lives|lived|works|worked|bought|ordered|signed|agreed|refused|wants|would like|requested|collapsed|died"
    r"|moved|visited"
    r"|stated|states|mentioned|explained|confirmed|disputes|disputed|taking|seen|reviewed|referred|pregnant|married)\b)",
    re.IGNORECASE,
)  # what people do
_SUFFERS = re.compile(
    r"(?: has| had| is| was)? (?:fell|told (?:me|us|him|her|staff)|collapsed|lives|lived|phoned|rang|emailed"
    r"|attended|denies|denied"
    r"|feels|felt|complains|complained|presented|admitted|discharged|died|asked|wants|agreed|works|worked|married|pregnant)\b"
)
_SURNAME = re.compile(
    r"(?:Mc|Mac|O'|Fitz|D')[A-ZÀ-Þ]|.{2,}(?:s[oe]n|sk[iy]|ska|wicz|czyk|ov|ova|ev|eva|ez|berg|stein|mann|worth|field|wood"
    r"|bottom|akis|idis|opoulos|escu|enko|yan|ian|qvist|quist|str[oö]m|d[oó]ttir|murthy|subramanian|nathan|anathan|hurst"
    r"|croft|stone|combe|gast|weather|eray|thy|naught|ridge|shaw|bury|elli|etti|otti|ucci|oglu|aitė)\Z"
)  # how many a surname begins or ends
_COMMA_FIRST = re.compile(rf", ({_WORD}(?: [{_UPPER}]\.?(?!\w))?)")
_BRANDS = frozenset(
    [("Ralph", "Lauren"), ("Calvin", "Klein"), ("Tommy", "Hilfiger"), ("Hugo", "Boss"), ("Yves", "Laurent"),
    ("Jimmy", "Choo"),
     ("Marc", "Jacobs"), ("Kate", "Spade"), ("Michael", "Kors"), ("Ted", "Baker"), ("Paul", "Smith"),
     ("Charles", "Schwab"),
     ("Peter", "Pan"), ("James", "Bond"), ("Betty", "Crocker"), ("Bloody", "Mary"), ("Morgan", "Stanley"),
     ("Wells", "Fargo"), ("Estée", "Lauder"), ("Estee", "Lauder"), ("Elizabeth", "Arden"),
     ("Helena", "Rubinstein"), ("Jack", "Daniels"), ("Johnnie", "Walker"), ("Ben", "Jerry"), ("Vera", "Wang"),
     ("Tom", "Ford"),
     ("Dr", "Martens"), ("Harry", "Potter"), ("Barbie", "Ken"), ("Jack", "Wolfskin"), ("Karl", "Lagerfeld"),
     ("Julius", "Meinl")]
)  # fmt: skip
_LOWER = re.compile(
    r"\b(?:name is|name:|i am|i'm|this is|called|dear|hi|hello) ([a-z][a-z'-]+(?: [a-z][a-z'-]+)?)"
)
_LOWER_CUES = ("name is ", "name: ", "i am ", "i'm ", "this is ", "called ", "dear ", "hi ", "hello ")
_MORE_THAN_A_NAME = 4  # words


class _Token(NamedTuple):
    """A capitalised word at text[start:end]; `word` is how the lists write it."""

    word: str
    start: int
    end: int
    is_initial: bool
    is_shouted: bool


def names(text: str) -> Spans:
    """Names of people in Latin and Chinese script."""
    found = [*_latin_names(text)]
    if not text.isascii():
        found += chinese_names(text)
    yield from sorted(set(found))


def _latin_names(text: str) -> Spans:
    lexicon = latin()
    done = 0
    for run in _runs(text):
        if run.start() < done or run[0] in lexicon.common or len(run[0]) == 1:
            continue
        tokens = [_token(found) for found in _TOKEN.finditer(text, run.start(), run.end())]
        for start, end in _of_run(text, tokens, lexicon):
            done = max(done, end)
            yield start, end
    if any(words in text for words in _LOWER_CUES):
        yield from _lower_names(text, lexicon)


def _runs(text: str) -> Iterator[re.Match[str]]:
    """What `_RUN.finditer` gives, tried at capital letters only."""
    done = 0
    for capital in _CAPITAL.finditer(text):
        if capital.start() >= done and (run := _RUN.match(text, capital.start())) is not None:
            done = run.end()
            yield run


def _token(found: re.Match[str]) -> _Token:
    written = found[0]
    word = written.removesuffix(".").replace("’", "'")
    shouted = len(word) > 1 and word.isupper()
    return _Token(word.title() if shouted else word, found.start(), found.end(), len(word) == 1, shouted)


def _of_run(text: str, tokens: Sequence[_Token], lexicon: Lexicon) -> Spans:
    """Names among neighbouring capitalised words, from the left, the longest first."""
    at = 0
    while at < len(tokens):
        if tokens[at].word in _TITLES:
            last = _titled(tokens, at, lexicon)
            if last and tokens[last].word != "Martens":
                yield tokens[at + 1].start, tokens[last].end
            at = last + 1 if last else at + 1
            continue
        last, end = _starting(text, tokens, at, lexicon)
        if end:
            yield tokens[at].start, end
        at = last + 1


def _titled(tokens: Sequence[_Token], at: int, lexicon: Lexicon) -> int:
    """The last token of the name behind a title; 0 when there is none."""
    last = 0
    for number in range(at + 1, min(len(tokens), at + 1 + _MORE_THAN_A_NAME)):
        token = tokens[number]
        if token.word in _TITLES and number == at + 1:
            return _titled(tokens, number, lexicon)
        if token.word in lexicon.common and token.word not in lexicon.last:
            break
        last = number
    return last


class _Before(NamedTuple):
    """The last words in front of a name in small letters, and whether one space is all that stands between."""

    words: Sequence[str]
    is_next: bool

    @property
    def last(self) -> str:
        """The word right before; "" where a sign stands between."""
        return self.words[-1] if self.words and self.is_next else ""

    def announces(self) -> bool:
        """Whether they call what follows a person's name."""
        words = (
            self.words[:-1]
            if self.words and self.words[-1] in ("is", "was") and self._is_whole()
            else self.words
        )
        if not words:
            return False
        if words[-1] in _CUES or " ".join(words[-2:]) in _CUES_OF_TWO:
            return True
        is_for = len(words) > 2 and words[-2] in ("is", "was") and words[-1] in _TOWARDS
        return is_for and f"{words[-3]} {words[-1]}" in _CUES_OF_TWO

    def _is_whole(self) -> bool:
        return " ".join(self.words[-2:]) not in _CUES_OF_TWO


def _before(text: str, tokens: Sequence[_Token], at: int) -> _Before:
    start = tokens[at].start
    near = text[max(0, start - _NEAR) : start]
    stripped = near.rstrip(" \t\n,:(–-")
    return _Before(stripped.lower().split()[-3:], near == stripped + " ")


def _starting(text: str, tokens: Sequence[_Token], at: int, lexicon: Lexicon) -> tuple[int, int]:
    """(the last token looked at, where the name that starts here ends or 0)."""
    token = tokens[at]
    word = token.word
    if word in lexicon.common or (token.is_initial and at + 1 == len(tokens)):
        return at, 0
    is_first, is_last = word in lexicon.first, word in lexicon.last
    before = _before(text, tokens, at)
    is_cued = before.announces()
    last = _extent(tokens, at, lexicon)
    end = tokens[last].end
    if is_last and last == at and (comma := _COMMA_FIRST.match(text, end)):
        given = comma[1].split(" ")[0].title()
        if given in lexicon.first and (is_cued or not {word, given} <= lexicon.doubtful):
            return last, comma.end()
    if _is_thing(text, tokens, last, lexicon):
        return last, 0
    if is_cued and not token.is_shouted:
        is_listed = (is_first or is_last) and word not in lexicon.doubtful
        if last > at or is_listed or before.last not in _WEAK:
            return last, end
    group = tokens[at : last + 1]
    if len(group) == 1:
        if word in lexicon.doubtful or token.is_shouted or len(word) < 3 or before.last in _ARTICLES:
            return last, 0
        return last, end if is_first or (len(word) > 3 and _SUFFERS.match(text, end)) else 0
    is_placed = before.last in _PLACED
    strange = lexicon.common | lexicon.doubtful
    if (
        len(group) == 2
        and before.last in _DOERS
        and not any(one.word in strange or one.is_shouted for one in group)
    ):
        return last, end
    if not is_placed and before.last not in _ARTICLES and _ACTS.match(text, end):
        doubts = sum(one.word in lexicon.doubtful for one in group)
        if (
            not doubts
            or (doubts < len(group) and not group[0].is_shouted)
            or (is_first and group[-1].word in lexicon.last)
        ):
            return last, end
    return last, end if _is_name(group, lexicon, is_placed=is_placed) else 0


def _extent(tokens: Sequence[_Token], at: int, lexicon: Lexicon) -> int:
    """The last of the words from here that could belong to one name."""
    last = at
    for number in range(at + 1, min(len(tokens), at + _MORE_THAN_A_NAME)):
        word = tokens[number].word
        if (
            word in lexicon.common
            or word in _TITLES
            or (word.lower() in lexicon.things and word not in lexicon.last)
        ):
            break
        if tokens[number].is_shouted != tokens[at].is_shouted and not (
            tokens[number].is_initial or tokens[at].is_initial
        ):
            break
        last = number
    while last > at and tokens[last].is_initial:
        last -= 1
    return last


def _is_name(group: Sequence[_Token], lexicon: Lexicon, *, is_placed: bool) -> bool:
    """Whether two to four capitalised words are a person's, by how sure the lists are of each."""
    words = [token.word for token in group if not token.is_initial]
    if len(words) < len(group) and len(words) == 1:  # J. Smith
        return words[0] in lexicon.last and words[0] not in lexicon.doubtful and "." in _written(group)
    head, tail = words[0], words[-1]
    if (head, tail) in _BRANDS:
        return False
    head_sure, tail_sure = head not in lexicon.doubtful, tail not in lexicon.doubtful
    if any(token.is_shouted for token in group):
        return head in lexicon.first and tail in lexicon.last and head_sure and tail_sure
    if head in lexicon.first and tail in lexicon.last:
        return head_sure or tail_sure
    if is_placed:
        return False
    if head in lexicon.first:
        return head_sure or (tail_sure and _SURNAME.match(tail) is not None)
    if not (head_sure and tail_sure):
        return False
    return (
        tail in lexicon.last or bool(_SURNAME.match(tail)) or (head in lexicon.last and tail in lexicon.first)
    )


def _written(group: Sequence[_Token]) -> str:
    return "." if any(token.is_initial and token.end - token.start == 2 for token in group) else ""


def _is_thing(text: str, tokens: Sequence[_Token], last: int, lexicon: Lexicon) -> bool:
    """Whether what stands behind makes it a street, a disease or a company."""
    behind = _BEHIND.match(text, tokens[last].end)
    if behind is not None and behind[1].lower() in lexicon.things:
        return True
    return (
        text[tokens[last].end : tokens[last].end + 3] in (" & ", " + ")
        or text[max(0, tokens[0].start - 3) : tokens[0].start] == " & "
        or (tokens[last].word.lower() in lexicon.things and tokens[last].word not in lexicon.last)
    )


def _lower_names(text: str, lexicon: Lexicon) -> Spans:
    """my name is anna smith: in small letters only right behind words that announce a name."""
    for found in _LOWER.finditer(text):
        first, _, last = found[1].partition(" ")
        given = first.title()
        if given not in lexicon.first or given in lexicon.doubtful or len(given) < 3:
            continue
        is_whole = last.title() in lexicon.last and last.title() not in lexicon.doubtful
        yield found.start(1), found.end(1) if is_whole else found.start(1) + len(first)
