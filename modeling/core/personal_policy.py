"""What is done with each kind of personal data: off, report, mask or block; the same for uploads and requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modeling.core import personal_lexicon
from modeling.core.personal_data import ALL_KINDS, ASKED_FOR, KINDS, count, find, replace

ACTIONS = ("off", "report", "mask", "block")  # from the mildest to the strictest


class PolicyWrong(Exception):
    """The policy has a kind or an action that there is not; `param` says which."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param
        self.message = message


@dataclass(frozen=True, slots=True)
class Screened:
    """A text as it may be kept or shown, how many of each kind were in it, and the kinds that refuse it."""

    text: str
    found: Mapping[str, int] = field(default_factory=dict)
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Policy:
    """An action for each kind; a kind that is not named is left alone."""

    actions: Mapping[str, str]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that are looked for."""
        return tuple(kind for kind in ALL_KINDS if self.action(kind) != "off")

    @property
    def strictest(self) -> str:
        """The strictest action of all."""
        return max((self.action(kind) for kind in ALL_KINDS), key=ACTIONS.index)

    def action(self, kind: str) -> str:
        """What is done with one kind."""
        return self.actions.get(kind, "off")

    def screen(self, text: str) -> Screened:
        """The text under this policy; a refused text comes back as it was."""
        places = find(text, kinds=self.kinds)
        if not places:
            return Screened(text)
        found = count(places)
        refused = tuple(kind for kind in found if self.action(kind) == "block")
        masked = [place for place in places if self.action(place.kind) == "mask"]
        return Screened(text if refused else replace(text, masked), found, refused)

    def without_reports(self) -> Policy:
        """Only what changes or refuses a text."""
        return Policy({kind: one for kind, one in self.actions.items() if one in ("mask", "block")})

    def is_ready(self) -> bool:
        """Whether looking is quick from now on: the lists of names take a third of a second the first time."""
        return "name" not in self.kinds or personal_lexicon.is_loaded()

    def at_least(self, other: Policy) -> Policy:
        """For each kind the stricter of the two actions."""
        pairs = {kind: (self.action(kind), other.action(kind)) for kind in ALL_KINDS}
        return Policy({kind: max(pair, key=ACTIONS.index) for kind, pair in pairs.items()})

    def changed(self, changes: Mapping[str, Any]) -> Policy:
        """This policy with some actions changed; raises PolicyWrong."""
        return Policy({**self.actions, **checked(changes)})


def checked(actions: Mapping[str, Any]) -> dict[str, str]:
    """{kind: action} out of what somebody sent; raises PolicyWrong."""
    for kind, action in actions.items():
        if kind not in ALL_KINDS:
            raise PolicyWrong("entities", f"The kinds are {', '.join(ALL_KINDS)}.")
        if action not in ACTIONS:
            raise PolicyWrong(kind, f"Each kind is one of {', '.join(ACTIONS)}.")
    return {str(kind): str(action) for kind, action in actions.items()}


def of_rule(rule: str, entities: Mapping[str, str]) -> Policy:
    """An endpoint's rule (off | note | mask | block) with its choices for single kinds.

    The rule alone speaks of what is found by its shape: names and plain dates are looked for where they are named.
    """
    action = "report" if rule == "note" else rule
    actions = {kind: "off" if kind in ASKED_FOR else action for kind in ALL_KINDS}
    return Policy({**actions, **entities})


EVERY_SHAPE = Policy(dict.fromkeys(KINDS, "mask"))
