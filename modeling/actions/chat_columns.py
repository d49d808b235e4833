"""Conversations from a file: a column of turns, or a prompt and a completion beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext as _

from modeling.core.tables import RowRefused
from modeling.core.tables_jsonl import check_messages
from saas.lib.errors import Refusal

PAIR = ("prompt", "completion")
_NO_TEXT = ("list", "object", "empty")


def preferred(columns: dict[str, str], named: Mapping[str, str]) -> dict[str, str]:
    """The columns without a guessed conversation where the caller names a prompt or a completion instead."""
    if "messages" in named or not any(named.get(role) for role in PAIR):
        return columns
    return {role: name for role, name in columns.items() if role != "messages"}


def needed(columns: Mapping[str, str]) -> tuple[str, ...]:
    """The roles a chat job reads: the conversation; where only a prompt or a completion is named, those two."""
    if "messages" not in columns and any(role in columns for role in PAIR):
        return PAIR
    return ("messages",)


def check(columns: Mapping[str, str], kinds: Mapping[str, str]) -> None:
    """Refuse columns that cannot hold what they are named for; `kinds` by column name. Raises Refusal."""
    roles = needed(columns)
    if roles == PAIR and columns["prompt"] == columns["completion"]:
        raise Refusal(
            _("Prompt and completion must be two different columns."),
            param="columns.completion", code="invalid_column",
        )  # fmt: skip
    for role in roles:
        kind = kinds.get(columns[role], "")
        if role == "messages" and kind != "list":
            raise Refusal(
                _(
                    "The messages column must hold lists of turns: upload JSON lines in OpenAI’s form, "
                    "or name a prompt and a completion column."
                ),
                param="columns.messages", code="invalid_column",
            )  # fmt: skip
        if role in PAIR and kind in _NO_TEXT:
            raise Refusal(
                _("The %(role)s column must hold one text in each row.") % {"role": role},
                param=f"columns.{role}", code="invalid_column",
            )  # fmt: skip


def conversation(columns: Mapping[str, str], values: Mapping[str, Any]) -> list[dict[str, str]] | None:
    """One row's turns; None for a row without an answer or of another form."""
    if needed(columns) == PAIR:
        prompt, completion = (_text(values.get(columns[role])) for role in PAIR)
        if not prompt or not completion:
            return None
        return [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    turns = values.get(columns["messages"])
    try:
        check_messages(turns)
    except RowRefused:
        return None
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns or ()]


def _text(cell: Any) -> str:
    return "" if cell is None or isinstance(cell, (list, dict)) else str(cell).strip()
