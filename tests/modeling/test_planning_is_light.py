"""Planning and quoting run in the web process: the default heads must be planned without loading torch there."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from modeling.core import planning
from modeling.core.types import Recipe, Shape
planning.plan(Recipe({task!r}, "minilm-l6", labels=("a", "b")), Shape(5000, 1000, 6000, classes=2, items=50))
print("torch" in sys.modules or {extra})
"""


@pytest.mark.parametrize("task", ["classification", "recommendation", "chat"])
def test_the_default_heads_are_planned_without_torch(task: str) -> None:
    assert _loads_torch(task, extra="False") == "False"


def test_the_check_would_see_it() -> None:
    assert _loads_torch("classification", extra="__import__('torch') is not None") == "True"


def _loads_torch(task: str, *, extra: str) -> str:
    script = SCRIPT.format(task=task, extra=extra)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.strip()
