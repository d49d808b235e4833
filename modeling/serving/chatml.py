"""ChatML as SmolLM2 was tuned on it: message text can never become a control token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer

DEFAULT_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
START, END, OVER = "<|im_start|>", "<|im_end|>", "<|endoftext|>"


class ChatTokenizer:
    """Prompt tokens of a conversation, and which tokens end an answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.encode_special_tokens = True  # "<|im_end|>" typed by a user is text
        self.start, self.end, over = (self._control(name) for name in (START, END, OVER))
        self.ends = frozenset((self.end, over))
        self._newline = self._plain("\n")

    def _control(self, name: str) -> int:
        token = self.tokenizer.token_to_id(name)
        if token is None:
            raise ValueError(f"The chat tokenizer lacks {name}.")
        return int(token)

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Tokens of [{"role", "content"}…] up to where the assistant's answer begins, default system text included."""
        turns = [(message["role"], message["content"]) for message in messages]
        if turns[0][0] != "system":
            turns.insert(0, ("system", DEFAULT_SYSTEM))
        tokens: list[int] = []
        for role, content in turns:
            tokens += [self.start, *self._plain(f"{role}\n{content}"), self.end, *self._newline]
        return [*tokens, self.start, *self._plain("assistant\n")]

    def system_tokens(self, prompt: Sequence[int]) -> int:
        """How many of a prompt's first tokens are its system message, the newline after it included."""
        return prompt.index(self.end) + 1 + len(self._newline)
