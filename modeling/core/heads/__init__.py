"""The registry of heads: which class trains a (task, method), imported only when it is asked for."""

from __future__ import annotations

import importlib

from modeling.core.heads.base import Head
from modeling.core.types import CannotTrain

HEADS: dict[tuple[str, str], str] = {
    ("classification", "head"): "modeling.core.heads.classify:TextHead",
    ("classification", "lora"): "modeling.core.heads.classify_lora:TextLoraHead",
    ("recommendation", "ssr"): "modeling.core.heads.recommend:SsrHead",
    ("recommendation", "popularity"): "modeling.core.heads.recommend:PopularityHead",
    ("chat", "final_hidden"): "modeling.core.heads.chat:FinalHiddenHead",
}
AUTO: dict[str, str] = {"classification": "head", "recommendation": "ssr", "chat": "final_hidden"}


def load(task: str, method: str) -> Head:
    """The head for a task and a method ("auto": the task's default); raises CannotTrain for an unknown pair."""
    if method == "auto":
        method = AUTO.get(task, method)
    try:
        module, name = HEADS[(task, method)].split(":")
    except KeyError:
        raise CannotTrain(
            f"There is no method “{method}” for the task “{task}”.", code="unknown_method"
        ) from None
    head: Head = getattr(importlib.import_module(module), name)()
    return head
