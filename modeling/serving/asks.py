"""What every runner of the engine gets: one request's tenant, body and deadline, and checked access to its fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modeling.serving.store import Reference
from modeling.serving.wire import EngineRefusal

MAX_DEADLINE_SECONDS = 600.0


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """One request. `deadline` is on the loop's clock, in seconds."""

    op: str
    tenant: str
    body: Mapping[str, Any]
    deadline: float

    @property
    def reference(self) -> Reference | None:
        """The tuned version to use, or None for the plain base."""
        artifact = self.body.get("artifact")
        if artifact is None:
            return None
        if not isinstance(artifact, dict):
            raise EngineRefusal("bad_request", "artifact is not a map.")
        return Reference.parse(self.tenant, artifact)

    def text(self, name: str) -> str:
        """A string field; raises EngineRefusal `bad_request`."""
        value = self.body.get(name)
        if not isinstance(value, str):
            raise EngineRefusal("bad_request", f"{name} is not a string.")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of strings; raises EngineRefusal `bad_request`."""
        value = self.body.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise EngineRefusal("bad_request", f"{name} is not a list of strings.")
        return value

    def integer(self, name: str, default: int) -> int:
        """A whole number; raises EngineRefusal `bad_request`."""
        value = self.body.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise EngineRefusal("bad_request", f"{name} is not a whole number.")
        return value

    def number(self, name: str, default: float) -> float:
        """A number; raises EngineRefusal `bad_request`."""
        value = self.body.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise EngineRefusal("bad_request", f"{name} is not a number.")
        return float(value)
