"""From scores to a token: temperature, nucleus, penalties, biases, a mask of what a grammar allows, and logprobs."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

_SHORTLIST = 512
_COLD = 1e-4  # below this temperature: the best token
LEAST_LOGPROB = -9999.0  # as OpenAI writes "never"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose: temperature 0 takes the best token; top_p keeps the smallest set with that much probability.

    `logprobs` is None, or how many of the likeliest tokens are told beside each chosen one (0 to 20).
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Likely:
    """A token and the logarithm of its probability, before temperature and bias; `others` holds the likeliest."""

    token: int
    logprob: float
    others: tuple[Likely, ...] = ()


class Sampler:
    """One conversation's own source of chance, and what it has said so far."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        self._chance = torch.Generator().manual_seed(seed & (2**63 - 1))
        self._said: Counter[int] = Counter()
        self._is_penal = bool(sampling.frequency_penalty or sampling.presence_penalty)

    def pick(self, scores: torch.Tensor, allowed: torch.Tensor | None = None) -> int:
        """A token from scores [vocabulary] float32, out of those that `allowed` [vocabulary] bool admits."""
        scores = self._changed(scores)
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        token = self._drawn(scores)
        if self._is_penal:
            self._said[token] += 1
        return token

    def likely(self, scores: torch.Tensor, token: int) -> Likely:
        """The chosen token among scores [vocabulary] float32, with as many others as were asked for."""
        logprobs = torch.log_softmax(scores, 0)
        values, tokens = logprobs.topk(min(self._sampling.logprobs or 0, len(logprobs)))
        others = zip(tokens.tolist(), values.tolist(), strict=True)
        return Likely(
            token,
            max(float(logprobs[token]), LEAST_LOGPROB),
            tuple(Likely(other, max(value, LEAST_LOGPROB)) for other, value in others),
        )

    def _changed(self, scores: torch.Tensor) -> torch.Tensor:
        if not self._said and not self._sampling.logit_bias:
            return scores
        scores = scores.clone()
        for token, bias in self._sampling.logit_bias.items():
            scores[token] += bias
        for token, count in self._said.items():
            scores[token] -= count * self._sampling.frequency_penalty + self._sampling.presence_penalty
        return scores

    def _drawn(self, scores: torch.Tensor) -> int:
        if self._sampling.temperature < _COLD:
            return int(scores.argmax())
        weights = torch.softmax(scores / self._sampling.temperature, 0)
        if self._sampling.top_p >= 1.0:
            return self._draw(weights)
        values, tokens = self._nucleus(weights)
        return int(tokens[self._draw(values)])

    def _draw(self, weights: torch.Tensor) -> int:
        """An index by weights [n]: one number on their running sum, eight times as fast as torch.multinomial."""
        ends = weights.cumsum(0)
        place = torch.rand(1, generator=self._chance) * ends[-1]
        index = int(torch.searchsorted(ends, place, right=True))
        return index if index < len(weights) else int(weights.argmax())  # rounded up to the very end

    def _nucleus(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, tokens = weights.topk(min(_SHORTLIST, len(weights)))
        if float(values.sum()) < self._sampling.top_p:
            values, tokens = weights.sort(descending=True)
        keep = int((values.cumsum(0) - values < self._sampling.top_p).sum())
        return values[:keep], tokens[:keep]
