"""Conversations as token ids: which of them are the assistant's own words, and where its turns open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import AutoTokenizer

from modeling.core.chat_plans import MAX_TOKENS

Turns = Sequence[Mapping[str, str]]
_PROBE = ({"role": "user", "content": "a"},)


@dataclass(frozen=True)
class Turn:
    """One of the assistant's turns, in tokens: it opens at `open`, its words are `first`..`last` - 1."""

    open: int
    first: int
    last: int


@dataclass(frozen=True)
class Conversation:
    """`ids` [t]; `answers` [m]: positions of the assistant's tokens, each with a token before it.

    `turns` cover the same tokens turn by turn. The first `lead` tokens come before anything a person said: the system
    text, which many conversations share.
    """

    ids: npt.NDArray[np.int64]
    answers: npt.NDArray[np.int64]
    turns: tuple[Turn, ...] = ()
    lead: int = 0


class ChatTokens:
    """A base model's tokenizer and chat template."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)

    def opening(self) -> list[int]:
        """The tokens with which every answer opens, at the end of a prompt."""
        plain = self._render(_PROBE)
        opened = self._render(_PROBE, add_generation_prompt=True)
        ids: list[int] = self._tokenizer(opened[len(plain) :], add_special_tokens=False)["input_ids"]
        return ids

    def encode(self, turns: Turns, max_tokens: int = MAX_TOKENS) -> Conversation:
        """Token ids of the rendered conversation, cut to `max_tokens`, and the positions of its answers.

        An answer is an assistant turn's content with the token that ends the turn, not the line that opens it.
        """
        messages = [dict(turn) for turn in turns]
        text = self._render(messages)
        found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = np.asarray(found["input_ids"][:max_tokens], dtype=np.int64)
        offsets = np.array(found["offset_mapping"][:max_tokens], dtype=np.int64).reshape(-1, 2)
        starts = offsets[:, 0]
        inside = np.zeros(len(ids), dtype=bool)
        found_turns = []
        for opened, first, last in self._answer_spans(messages):
            inside |= (starts >= first) & (starts < last)
            bounds = np.searchsorted(starts, (opened, first, last))
            turn = Turn(int(bounds[0]), max(int(bounds[1]), 1), int(bounds[2]))
            if turn.first < turn.last:
                found_turns.append(turn)
        inside[:1] = False
        answers = np.flatnonzero(inside).astype(np.int64)
        lead = int(np.searchsorted(offsets[:, 1], _said_at(text, messages), side="right"))
        lead = min([lead, len(ids), *(turn.open for turn in found_turns), *(answers[:1] - 1).tolist()])
        return Conversation(ids, answers, tuple(found_turns), lead)

    def decode(self, ids: npt.NDArray[np.int64]) -> str:
        """The text of token ids, special tokens included."""
        text: str = self._tokenizer.decode(ids.tolist())
        return text

    def _answer_spans(self, messages: list[dict[str, str]]) -> list[tuple[int, int, int]]:
        """(opening, first, last) characters of the assistant's turns in the text, without the line break after each."""
        spans = []
        for index, message in enumerate(messages):
            if message["role"] == "assistant":
                opened = len(self._render(messages[:index])) if index else 0
                first = len(self._render(messages[:index], add_generation_prompt=True)) if index else 0
                last = len(self._render(messages[: index + 1]).rstrip("\n"))
                spans.append((opened, first, last))
        return spans

    def _render(self, messages: Turns, *, add_generation_prompt: bool = False) -> str:
        rendered: str = self._tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return rendered


def _said_at(text: str, messages: list[dict[str, str]]) -> int:
    """Where in the text the first message that is no system text begins; 0 when it cannot be told."""
    at = 0
    for message in messages:
        found = text.find(message["content"].strip(), at)
        if found < 0:
            return 0
        if message["role"] not in ("system", "developer"):
            return found
        at = found + len(message["content"].strip())
    return 0
