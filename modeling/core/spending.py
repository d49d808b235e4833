"""What a run has used of its plan: which compositions come next, and epsilon so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from modeling.core import accounting
from modeling.core.types import Charge, CoreError, Plan


class Spending:
    """Counts the compositions of each mechanism, starting from what earlier attempts were charged."""

    def __init__(self, plan: Plan, spent: Mapping[str, int]) -> None:
        self._plan = plan
        self._counts = {mechanism.name: spent.get(mechanism.name, 0) for mechanism in plan.mechanisms}
        self._limits = {mechanism.name: mechanism.count for mechanism in plan.mechanisms}

    def used(self, name: str) -> int:
        """Compositions charged so far, by this attempt and the earlier ones."""
        return self._counts.get(name, 0)

    def remaining(self, name: str) -> int:
        """Compositions that may still run; 0 for a mechanism that the plan does not have."""
        return max(self._limits.get(name, 0) - self.used(name), 0)

    def charge(self, name: str, count: int) -> Charge:
        """The event to yield before these compositions run; raises CoreError beyond the reservation."""
        if count < 1 or count > self.remaining(name):
            raise CoreError(
                "The job has used all the steps that were reserved for it.", code="reservation_used"
            )
        first = self.used(name)
        self._counts[name] = first + count
        return Charge(name, first, count)

    def epsilon(self) -> float | None:
        """Epsilon of what was charged so far, over all attempts; None when privacy is off."""
        if not self._plan.mechanisms:
            return None
        done = [replace(item, count=self.used(item.name)) for item in self._plan.mechanisms]
        return accounting.epsilon([item for item in done if item.count], self._plan.delta)
