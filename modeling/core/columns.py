"""What each column seems to be for: public facts from a sample of rows, and guesses of roles with their reasons."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from modeling.core.tables_jsonl import MESSAGES

DISTINCT_KEPT = 5_000
LABELS_MOST = 200
FEWEST_WORDS = (
    1.5  # on average, of a column that is taken for texts without being called so: not codes and names
)
_NUMBER = re.compile(r"[-+]?\d{1,18}([.,]\d{1,12})?([eE][-+]?\d{1,3})?$")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?$|\d{1,2}[./]\d{1,2}[./]\d{2,4}$")
_WORDS = re.compile(r"\s+")
Hints = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class ColumnFacts:
    """Counts over the sample, no cell's content. `distinct` stops at 5,000."""

    name: str
    kind: str  # text | category | number | date | list | object | empty
    rows: int
    filled: int
    distinct: int
    mean_length: float
    mean_words: float

    def as_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class Guess:
    """A column for a role, and why: a code for translation and the English sentence."""

    column: str
    code: str
    reason: str


@dataclass(frozen=True)
class Guesses:
    """The guessed task ("" when nothing fits) and the column of each role that was found."""

    task: str
    roles: Mapping[str, Guess]

    def column(self, role: str) -> str:
        """The column guessed for a role, or ""."""
        return self.roles[role].column if role in self.roles else ""


def measure(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[ColumnFacts]:
    """Facts about each column from sampled rows [n][columns]."""
    return [_measure_one(name, [row[at] for row in rows]) for at, name in enumerate(columns)]


def _measure_one(name: str, cells: Sequence[Any]) -> ColumnFacts:
    filled = [cell for cell in cells if cell is not None and cell != ""]
    texts = [cell if isinstance(cell, str) else str(cell) for cell in filled]
    distinct: set[str] = set()
    for text in texts:
        distinct.add(text.strip())
        if len(distinct) >= DISTINCT_KEPT:
            break
    count = max(1, len(texts))
    mean_words = sum(len(_WORDS.split(text.strip())) for text in texts[:2_000]) / max(1, len(texts[:2_000]))
    return ColumnFacts(
        name=name,
        kind=_kind(filled, texts, len(distinct), mean_words),
        rows=len(cells),
        filled=len(filled),
        distinct=len(distinct),
        mean_length=round(sum(map(len, texts)) / count, 1),
        mean_words=round(mean_words, 2),
    )


def _kind(filled: Sequence[Any], texts: Sequence[str], distinct: int, mean_words: float) -> str:
    if not filled:
        return "empty"
    if all(isinstance(cell, list) for cell in filled):
        return "list"
    if any(isinstance(cell, list | dict) for cell in filled):
        return "object"
    sample = [text.strip() for text in texts[:2_000]]
    if all(_NUMBER.match(text) for text in sample):
        return "number"
    if all(_DATE.match(text) for text in sample):
        return "date"
    if mean_words < 4 and distinct < DISTINCT_KEPT and distinct <= max(20, 0.5 * len(texts)):
        return "category"
    return "text"


def guess_roles(facts: Sequence[ColumnFacts], hints: Hints, *, is_catalogue: bool) -> Guesses:
    """Roles of the columns by the pack's names first, by shape second."""
    by_name = {normal(fact.name): fact for fact in facts}
    if is_catalogue:
        return _guess_catalogue(facts, by_name, hints)
    conversation = next((fact for fact in facts if fact.name == MESSAGES and fact.kind == "list"), None)
    if conversation is not None:
        roles = {"messages": Guess(MESSAGES, "messages", "The column `messages` holds conversations.")}
        return Guesses("chat", roles | _guess_unit(facts, by_name, hints, taken={MESSAGES}))
    return (
        _guess_pair(facts, by_name, hints)
        or _guess_interactions(facts, by_name, hints)
        or _guess_classification(facts, by_name, hints)
    )


def normal(name: str) -> str:
    """A column name for comparison: lower case, with underscores."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")


def _hinted(by_name: Mapping[str, ColumnFacts], names: Sequence[str], taken: set[str]) -> ColumnFacts | None:
    return next(
        (by_name[name] for name in names if name in by_name and by_name[name].name not in taken), None
    )


def _named(fact: ColumnFacts) -> Guess:
    return Guess(fact.name, "name", "The column's name says so.")


def _guess_pair(
    facts: Sequence[ColumnFacts], by_name: Mapping[str, ColumnFacts], hints: Hints
) -> Guesses | None:
    """A prompt and its completion, both by name: chat."""
    prompt = _hinted(by_name, hints.get("prompt", ()), set())
    completion = _hinted(by_name, hints.get("completion", ()), set())
    if prompt is None or completion is None or {prompt.kind, completion.kind} & {"list", "object", "empty"}:
        return None
    roles = {"prompt": _named(prompt), "completion": _named(completion)}
    return Guesses("chat", roles | _guess_unit(facts, by_name, hints, taken={prompt.name, completion.name}))


def _guess_interactions(
    facts: Sequence[ColumnFacts], by_name: Mapping[str, ColumnFacts], hints: Hints
) -> Guesses | None:
    user = _hinted(by_name, hints.get("user", ()), set())
    item = _hinted(by_name, hints.get("item", ()), {user.name} if user else set())
    if user is None or item is None or any(fact.mean_words > 3 for fact in facts):
        return None
    unit = Guess(user.name, "user", "The person who interacts is whose record it is.")
    return Guesses("recommendation", {"user": _named(user), "item": _named(item), "unit": unit})


def _guess_classification(
    facts: Sequence[ColumnFacts], by_name: Mapping[str, ColumnFacts], hints: Hints
) -> Guesses:
    roles: dict[str, Guess] = {}
    text = _hinted(by_name, hints.get("text", ()), set())
    if text is not None and text.kind == "text":
        roles["text"] = _named(text)
    else:
        words = (f for f in facts if f.kind == "text" and f.mean_words >= FEWEST_WORDS)
        text = max(words, key=lambda f: f.mean_length, default=None)
        if text is not None:
            roles["text"] = Guess(text.name, "longest", "It holds the longest texts.")
    taken = {text.name} if text else set()
    label = _hinted(by_name, hints.get("label", ()), taken)
    if label is not None and 2 <= label.distinct <= LABELS_MOST:
        roles["label"] = _named(label)
    elif (label := _few_values(facts, taken)) is not None:
        roles["label"] = Guess(label.name, "few_values", f"It has few different values ({label.distinct}).")
    taken |= {label.name} if label else set()
    roles |= _guess_unit(facts, by_name, hints, taken=taken)
    named = {guess.column for guess in roles.values()}
    is_table = text is None and any(f.kind in ("number", "category") and f.name not in named for f in facts)
    return Guesses("classification" if label is not None and (text or is_table) else "", roles)


def _few_values(facts: Sequence[ColumnFacts], taken: set[str]) -> ColumnFacts | None:
    fits = [
        fact
        for fact in facts
        if fact.name not in taken
        and fact.kind in ("category", "text", "number")
        and 2 <= fact.distinct <= min(LABELS_MOST, max(2, fact.filled // 5))
        and not normal(fact.name).endswith("id")
    ]
    return min(fits, key=lambda fact: (fact.kind == "number", fact.distinct), default=None)


def _guess_unit(
    facts: Sequence[ColumnFacts], by_name: Mapping[str, ColumnFacts], hints: Hints, *, taken: set[str]
) -> dict[str, Guess]:
    """Whose record a row is: a name the pack knows, or an id whose values come back; else each row is one person."""
    unit = _hinted(by_name, hints.get("unit", ()), taken)
    if unit is not None:
        return {"unit": Guess(unit.name, "name", "The column's name says whose record a row is.")}
    for fact in facts:
        returns = 1 < fact.distinct < 0.9 * fact.filled
        if fact.name not in taken and normal(fact.name).endswith("_id") and returns:
            return {"unit": Guess(fact.name, "returning_id", "It is an identifier whose values come back.")}
    return {}


def _guess_catalogue(
    facts: Sequence[ColumnFacts], by_name: Mapping[str, ColumnFacts], hints: Hints
) -> Guesses:
    roles: dict[str, Guess] = {}
    item = _hinted(by_name, hints.get("catalogue_id", ()), set())
    if item is not None:
        roles["catalogue_id"] = _named(item)
    elif (
        item := next((f for f in facts if f.distinct == f.filled == f.rows and f.mean_words < 2), None)
    ) is not None:
        roles["catalogue_id"] = Guess(item.name, "unique", "Each of its values is there once.")
    taken = {item.name} if item else set()
    text = _hinted(by_name, hints.get("catalogue_text", ()), taken)
    if text is not None:
        roles["catalogue_text"] = _named(text)
    else:
        text = max((f for f in facts if f.name not in taken), key=lambda f: f.mean_length, default=None)
        if text is not None:
            roles["catalogue_text"] = Guess(text.name, "longest", "It holds the longest texts.")
    return Guesses("", roles)
