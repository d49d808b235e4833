"""What may be told of a job: each fact is declared public, released or internal; events take the first two only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from modeling.core.types import Charge, Checkpoint, Event, HeldOut, Phase, Progress, Trained


class Disclosure(StrEnum):
    """The three kinds of telemetry (privacy rule 9)."""

    PUBLIC = "public"  # follows from the plan, the clock and what the tenant declared
    RELEASED = "released"  # noised and charged before it is told
    INTERNAL = "internal"  # of private rows: stays in the worker


PUBLIC, RELEASED, INTERNAL = Disclosure.PUBLIC, Disclosure.RELEASED, Disclosure.INTERNAL

# Each field of each event of the core. `done` and `total` of a phase count rows that fit the recipe, which is
# private: they are told as a share of the file (training.py). Charges go to the ledger, tensors to the vault,
# metrics and reports to the card.
FIELDS: Mapping[type, Mapping[str, Disclosure]] = MappingProxyType(
    {
        Progress: {
            "step": PUBLIC,
            "steps": PUBLIC,
            "epsilon": PUBLIC,
            "examples_per_second": PUBLIC,
            "seconds": PUBLIC,
            "seconds_left": PUBLIC,
        },
        HeldOut: {"step": PUBLIC, "accuracy": RELEASED, "noise_error": PUBLIC, "total": PUBLIC},
        Phase: {"name": PUBLIC, "done": INTERNAL, "total": INTERNAL, "seconds": PUBLIC},
        Charge: {"mechanism": INTERNAL, "first": INTERNAL, "count": INTERNAL},
        Checkpoint: {"step": PUBLIC, "tensors": INTERNAL},
        Trained: {
            "tensors": INTERNAL,
            "config": INTERNAL,
            "metrics": INTERNAL,
            "steps": PUBLIC,
            "seconds": PUBLIC,
            "report": INTERNAL,
        },
    }
)
# Facts beside those of the core's events: what the house itself knows of a job.
OTHERS: Mapping[str, Disclosure] = MappingProxyType(
    {
        "state": PUBLIC,
        "attempt": PUBLIC,
        "notes": PUBLIC,
        "cause": PUBLIC,
        "error": PUBLIC,  # the class of an error, never its text
        "model": PUBLIC,
        "endpoint": PUBLIC,
        "priority": PUBLIC,
        "is_pausing": PUBLIC,
        "has_checkpoint": PUBLIC,
        "done": PUBLIC,
        "total": PUBLIC,
        "epsilon": PUBLIC,
    }
)


class Undisclosed(Exception):
    """Something that may not be told was about to be: a bug."""


@dataclass(frozen=True)
class Told:
    """Facts that may leave the worker. Made by `public` and `of_event`, which refuse everything else."""

    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a fact that is not declared."""
        hidden = sorted(name for name in self.facts if name not in _TELLABLE)
        if hidden:
            raise Undisclosed(f"not declared as public or released: {', '.join(hidden)}")

    def also(self, **facts: Any) -> Told:
        """These facts and more public ones."""
        return Told({**self.facts, **public(**facts).facts})


def public(**facts: Any) -> Told:
    """Facts that are public by declaration; raises Undisclosed for any other."""
    hidden = sorted(name for name in facts if OTHERS.get(name) is not PUBLIC)
    if hidden:
        raise Undisclosed(f"not declared as public: {', '.join(hidden)}")
    return Told(facts)


def of_event(event: Event) -> Told:
    """The fields of a core event that may be told; the others are left out."""
    kinds = FIELDS[type(event)]
    return Told({name: value for name, value in vars(event).items() if kinds[name] is not INTERNAL})


_TELLABLE = {
    *(name for kinds in FIELDS.values() for name, kind in kinds.items() if kind is not INTERNAL),
    *(name for name, kind in OTHERS.items() if kind is not INTERNAL),
}
NOTHING = Told()
