"""From scores to a token, and from tokens to text that stops where it was asked to stop."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

_SHORTLIST = 512


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose: temperature 0 takes the best token; top_p keeps the smallest set with that much probability."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


class Sampler:
    """One conversation's own source of chance."""

    def __init__(self, sampling: Sampling) -> None:
        self._temperature = sampling.temperature
        self._top_p = sampling.top_p
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        self._chance = torch.Generator().manual_seed(seed & (2**63 - 1))

    def pick(self, scores: torch.Tensor) -> int:
        """A token from scores [vocabulary] float32."""
        if self._temperature < 1e-4:
            return int(scores.argmax())
        weights = torch.softmax(scores / self._temperature, 0)
        if self._top_p >= 1.0:
            return int(torch.multinomial(weights, 1, generator=self._chance))
        values, tokens = self._nucleus(weights)
        return int(tokens[torch.multinomial(values, 1, generator=self._chance)])

    def _nucleus(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, tokens = weights.topk(min(_SHORTLIST, len(weights)))
        if float(values.sum()) < self._top_p:
            values, tokens = weights.sort(descending=True)
        keep = int((values.cumsum(0) - values < self._top_p).sum())
        return values[:keep], tokens[:keep]


class TextStream:
    """Text as tokens come: whole characters only, and nothing that may be the start of a stop string."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._decode = DecodeStream(skip_special_tokens=True)
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def feed(self, token: int) -> str:
        """Text that is certain now; sets `stopped` when a stop string came, and then never gives more."""
        if self.stopped:
            return ""
        self._held += self._decode.step(self._tokenizer, token) or ""
        found = [place for stop in self._stop if (place := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            text, self._held = self._held[: min(found)], ""
            return text
        keep = max((self._overlap(stop) for stop in self._stop), default=0)
        cut = len(self._held) - keep
        text, self._held = self._held[:cut], self._held[cut:]
        return text

    def finish(self) -> str:
        """What was held back, once it is certain that nothing follows."""
        text, self._held = self._held, ""
        return text

    def _overlap(self, stop: str) -> int:
        """How many characters at the end of the held text may begin `stop`."""
        longest = min(len(stop) - 1, len(self._held))
        return next((size for size in range(longest, 0, -1) if self._held.endswith(stop[:size])), 0)
