"""The registry of heads: which class trains a (task, method), imported only when it is asked for."""

from __future__ import annotations

import importlib

from modeling.core.heads.base import Head
from modeling.core.types import CannotTrain

HEADS: dict[tuple[str, str], str] = {
    ("classification", "head"): "modeling.core.heads.classify:TextHead",
    ("classification", "lora"): "modeling.core.heads.classify_lora:TextLoraHead",
    ("classification", "full"): "modeling.core.heads.classify_full:TextFullHead",
    ("recommendation", "ssr"): "modeling.core.heads.recommend:SsrHead",
    ("recommendation", "popularity"): "modeling.core.heads.recommend:PopularityHead",
    ("chat", "auto"): "modeling.core.heads.chat:AutoChatHead",
    ("chat", "final_hidden"): "modeling.core.heads.chat:FinalHiddenHead",
    ("chat", "top_layers"): "modeling.core.heads.chat:TopLayersHead",
    ("chat", "lora"): "modeling.core.heads.chat:LoraChatHead",
}
TABULAR = "tabular"  # the base of models on declared columns: no weights to start from, and heads of its own
TABLE_HEADS: dict[tuple[str, str], str] = {
    ("classification", "additive"): "modeling.core.heads.tabular:AdditiveHead",
    ("classification", "network"): "modeling.core.heads.tabular_network:NetworkHead",
    ("regression", "additive"): "modeling.core.heads.tabular_regression:AdditiveRegressionHead",
    ("regression", "network"): "modeling.core.heads.tabular_network:NetworkRegressionHead",
}
AUTO: dict[str, str] = {"classification": "head", "recommendation": "ssr"}


def load(task: str, method: str, *, base: str = "") -> Head:
    """The head for a task and a method on a base ("auto": the default); raises CannotTrain for what does not exist."""
    heads = TABLE_HEADS if base == TABULAR else HEADS
    if method == "auto":
        method = "additive" if base == TABULAR else AUTO.get(task, method)
    try:
        module, name = heads[(task, method)].split(":")
    except KeyError:
        raise CannotTrain(
            f"There is no method “{method}” for the task “{task}”.", code="unknown_method"
        ) from None
    head: Head = getattr(importlib.import_module(module), name)()
    return head
