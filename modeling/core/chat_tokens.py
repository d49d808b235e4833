"""Conversations as token ids, and which of them are the assistant's own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import AutoTokenizer

Turns = Sequence[Mapping[str, str]]
MAX_TOKENS = 256  # a public cap: later tokens of a conversation are left out


@dataclass(frozen=True)
class Conversation:
    """`ids` [t]; `answers` [m]: positions of the assistant's tokens, each with a token before it."""

    ids: npt.NDArray[np.int64]
    answers: npt.NDArray[np.int64]


class ChatTokens:
    """A base model's tokenizer and chat template."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)

    def encode(self, turns: Turns, max_tokens: int = MAX_TOKENS) -> Conversation:
        """Token ids of the rendered conversation, cut to `max_tokens`, and the positions of its answers.

        An answer is an assistant turn's content with the token that ends the turn, not the line that opens it.
        """
        messages = [dict(turn) for turn in turns]
        text = self._render(messages)
        found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = np.asarray(found["input_ids"][:max_tokens], dtype=np.int64)
        starts = np.array([start for start, _ in found["offset_mapping"][:max_tokens]], dtype=np.int64)
        inside = np.zeros(len(ids), dtype=bool)
        for first, last in self._answer_spans(messages):
            inside |= (starts >= first) & (starts < last)
        inside[:1] = False
        return Conversation(ids, np.flatnonzero(inside).astype(np.int64))

    def decode(self, ids: npt.NDArray[np.int64]) -> str:
        """The text of token ids, special tokens included."""
        text: str = self._tokenizer.decode(ids.tolist())
        return text

    def _answer_spans(self, messages: list[dict[str, str]]) -> list[tuple[int, int]]:
        """Character spans of the assistant's turns in the rendered text, without the line break after each."""
        spans = []
        for index, message in enumerate(messages):
            if message["role"] == "assistant":
                first = len(self._render(messages[:index], add_generation_prompt=True)) if index else 0
                last = len(self._render(messages[: index + 1]).rstrip("\n"))
                spans.append((first, last))
        return spans

    def _render(self, messages: list[dict[str, str]], *, add_generation_prompt: bool = False) -> str:
        rendered: str = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return rendered
