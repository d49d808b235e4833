"""What each column of a file is proposed to be used as, and why: the roles found by name and shape, then all others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from modeling.core.columns import ColumnFacts, Guesses, normal

FEATURE, SENSITIVE, LEAVE = "feature", "sensitive", "leave"
USES = (FEATURE, SENSITIVE, LEAVE)  # roles that many columns can have
LEARNABLE = ("number", "category")


@dataclass(frozen=True)
class Proposal:
    """One column's role, with the reason as a code and an English sentence."""

    column: str
    role: str
    code: str
    reason: str


@dataclass(frozen=True)
class Knowledge:
    """What a vertical knows of columns: `knows` tells number, category or "" for a normalised name."""

    knows: Callable[[str], str]
    sensitive: Collection[str]  # normalised names of attributes that are only compared
    banded: Collection[str]  # those of them that are numbers with known bands
    times: Sequence[str]  # normalised names of times, the most telling first


def is_identifier(name: str) -> bool:
    """Whether a column's name says that it numbers records: it is learnt from only when it is named."""
    return normal(name) == "id" or normal(name).endswith(("_id", "_number", "_no", "_key"))


def propose(facts: Sequence[ColumnFacts], guesses: Guesses, knowledge: Knowledge) -> list[Proposal]:
    """A role for every column, in the order of the file; looks at names and public facts only."""
    named: dict[str, Proposal] = {}
    for role, guess in sorted(
        guesses.roles.items(), key=lambda one: one[0] == "unit"
    ):  # a user is a unit, too
        named.setdefault(guess.column, Proposal(guess.column, role, guess.code, guess.reason))
    is_table = guesses.task == "classification" and not guesses.column("text")
    time = _time(facts, named, knowledge)
    found = []
    for fact in facts:
        if fact.name in named:
            found.append(named[fact.name])
        elif fact.name == time:
            found.append(Proposal(fact.name, "timestamp", "time", "It says when."))
        else:
            role, code, reason = _use(fact, knowledge, is_table=is_table)
            found.append(Proposal(fact.name, role, code, reason))
    return found


def _time(facts: Sequence[ColumnFacts], named: Collection[str], knowledge: Knowledge) -> str:
    """The column of times: by name first, else the only one that holds dates."""
    free = [fact for fact in facts if fact.name not in named and fact.kind not in ("list", "object", "empty")]
    by_name = {normal(fact.name): fact.name for fact in free}
    hinted = next((by_name[name] for name in knowledge.times if name in by_name), "")
    dates = [fact.name for fact in free if fact.kind == "date"]
    return hinted or (dates[0] if len(dates) == 1 and "birth" not in normal(dates[0]) else "")


def _use(fact: ColumnFacts, knowledge: Knowledge, *, is_table: bool) -> tuple[str, str, str]:
    """(role, code, reason) of a column that no role was found for."""
    name = normal(fact.name)
    if fact.kind == "empty":
        return LEAVE, "empty", "It is empty."
    if is_identifier(fact.name):
        return LEAVE, "identifier", "It numbers records: nothing general can be learnt from it."
    knows = knowledge.knows(name)
    if name in knowledge.sensitive and (knows == "category" or name in knowledge.banded):
        return SENSITIVE, "sensitive", "Your vertical compares groups by it and never learns from it."
    if not is_table:
        return LEAVE, "not_read", "A model of this kind does not read it."
    if fact.kind not in LEARNABLE:
        return LEAVE, "not_learnable", "It holds neither numbers nor categories."
    if knows == "category" or (knows and fact.kind == "number"):
        what = "bounds" if knows == "number" else "categories"
        return FEATURE, "known", f"Your vertical knows its usual {what}."
    if fact.kind == "number":
        return LEAVE, "no_bounds", "Its bounds are not known: write them to learn from it."
    return LEAVE, "no_categories", "Its categories are not known: list them to learn from it."
