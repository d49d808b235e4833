"""Personal data in the rows of an upload: counted by column and kind, masked, or the file refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from modeling.core.columns import ColumnFacts
from modeling.core.personal_data import find
from modeling.core.personal_policy import Policy
from modeling.core.tables import Row, refuse
from modeling.core.tables_fast import Block

TEXT_ROLES = ("text", "messages", "prompt", "completion")
# Never changed: these cells say who a row belongs to, what it is about and what is learnt. A masked person would be
# everybody, a masked label another class. They are sealed under the person's key; what they seem to hold is said.
NEVER_ROLES = ("unit", "user", "item", "label", "catalogue_id")
FEWEST_WORDS = 3.0  # on average, of a column that nobody named and that is looked through as free text
REPORTED_ROWS = (
    50_000  # kinds that are only counted are looked for in the first rows; the findings say in how many
)
_SAMPLED, _TELLING = 200, 0.5
_SUSPICIOUS = ("email", "phone", "card", "iban", "national_id", "name")
_NO_CONTENT = frozenset({"role", "tool_call_id"})  # keys of a conversation's turns that are no text
_DEEP = 20
_HARMLESS_KEPT, _HARMLESS_CHARACTERS = 20_000, 300


@dataclass(frozen=True)
class Chosen:
    """Columns by their place: which are looked through, which only sampled to warn about."""

    looked: Mapping[int, str]
    sampled: Mapping[int, str]


def chosen_columns(
    facts: Sequence[ColumnFacts], roles: Mapping[str, str], wanted: str | Sequence[str] = "text"
) -> Chosen:
    """`roles` maps a role to a column. `wanted`: text (free text and messages), all, or more columns by name."""
    never = {roles[role] for role in NEVER_ROLES if roles.get(role)}
    texts = {roles[role] for role in TEXT_ROLES if roles.get(role)}
    names = {fact.name for fact in facts}
    more = names if wanted == "all" else set() if isinstance(wanted, str) else set(wanted)
    free = {fact.name for fact in facts if fact.kind in ("text", "list") and fact.mean_words >= FEWEST_WORDS}
    looked = (texts | free | (more & names)) - never
    return Chosen(
        {at: fact.name for at, fact in enumerate(facts) if fact.name in looked},
        {at: fact.name for at, fact in enumerate(facts) if fact.name in never},
    )


@dataclass
class Findings:
    """How many of each kind in each column, rows that were changed, and kinds that whole columns seem to hold."""

    policy: Policy
    columns: list[str]
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    rows: int = 0
    rows_masked: int = 0
    warnings: list[dict[str, str]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For the version's row: numbers and names of columns, never a cell's content."""
        return {
            "policy": dict(self.policy.actions),
            "columns": self.columns,
            "found": {column: dict(kinds) for column, kinds in self.counts.items() if kinds},
            "rows_masked": self.rows_masked,
            "rows_reported": min(self.rows, REPORTED_ROWS),
            "warnings": self.warnings,
        }


class Screening:
    """Takes rows on their way from the parser to the segments. Nothing of them is kept but counts."""

    def __init__(self, policy: Policy, chosen: Chosen) -> None:
        self._policy = policy
        self._chosen = chosen
        self._samples: dict[int, Counter[str]] = {at: Counter() for at in chosen.sampled}
        self._sampled = 0
        self._is_short = False
        self._harmless: set[str] = set()
        self.findings = Findings(policy, list(chosen.looked.values()))

    def pieces(self, pieces: Iterator[Block | list[Row]]) -> Iterator[Block | list[Row]]:
        """The same rows under the policy; a block in which nothing is changed stays one. Raises FileRefused."""
        for piece in pieces:
            self.findings.rows += len(piece)
            if not self._policy.kinds or not (self._chosen.looked or self._sampled < _SAMPLED):
                yield piece
                continue
            if self.findings.rows > REPORTED_ROWS and not self._is_short:
                self._policy, self._is_short = self._policy.without_reports(), True
                self._harmless.clear()
            rows = piece.rows() if isinstance(piece, Block) else piece
            screened = [self._row(row) for row in rows]
            is_same = all(new is old for new, old in zip(screened, rows, strict=True))
            yield piece if is_same else screened
        self._warn()

    def _row(self, row: Row) -> Row:
        if self._sampled < _SAMPLED:
            self._sample(row)
        values: list[Any] | None = None
        for at, column in self._chosen.looked.items():
            cell = row.values[at]
            changed = self._cell(cell, row.line, at, column)
            if changed is not cell:
                values = list(row.values) if values is None else values
                values[at] = changed
        if values is None:
            return row
        self.findings.rows_masked += 1
        return replace(row, values=values, raw=None, before=row.values)

    def _cell(self, cell: Any, line: int, at: int, column: str, depth: int = 0) -> Any:
        """The cell under the policy, the same object when nothing changes; lists and objects text by text."""
        if isinstance(cell, str):
            return self._text(cell, line, at, column)
        if depth < _DEEP and isinstance(cell, list):
            parts = [self._cell(one, line, at, column, depth + 1) for one in cell]
            return cell if all(new is old for new, old in zip(parts, cell, strict=True)) else parts
        if depth < _DEEP and isinstance(cell, dict):
            made = {
                key: one if key in _NO_CONTENT else self._cell(one, line, at, column, depth + 1)
                for key, one in cell.items()
            }
            return cell if all(made[key] is cell[key] for key in cell) else made
        return cell

    def _text(self, text: str, line: int, at: int, column: str) -> str:
        if text in self._harmless:
            return text
        screened = self._policy.screen(text)
        if not screened.found:
            self._remember(text)
            return text
        if screened.refused:
            kinds = ", ".join(screened.refused)
            fix = f"Your policy refuses personal data of this kind ({kinds}). Take it out, or change the policy."
            raise refuse("personal_data", fix, line=line, column=at + 1)
        self.findings.counts.setdefault(column, Counter()).update(screened.found)
        return text if screened.text == text else screened.text

    def _remember(self, text: str) -> None:
        """Nothing was found in it: cells often come again."""
        if len(text) <= _HARMLESS_CHARACTERS:
            if len(self._harmless) >= _HARMLESS_KEPT:
                self._harmless.clear()
            self._harmless.add(text)

    def _sample(self, row: Row) -> None:
        self._sampled += 1
        for at, seen in self._samples.items():
            cell = row.values[at]
            if isinstance(cell, str) and len(cell) < 500:
                seen.update({place.kind for place in find(cell, kinds=_SUSPICIOUS)})

    def _warn(self) -> None:
        for at, seen in self._samples.items():
            for kind, many in seen.most_common(1):
                if many >= max(2, _TELLING * self._sampled):
                    self.findings.warnings.append({"column": self._chosen.sampled[at], "kind": kind})
