"""The final-hidden adapter h' = h + B A h + bias: its loss, and exact gradients of single units in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from modeling.core.types import Tensors

RANK = 8
_ROWS_AT_ONCE = 256  # logits of 49,152 words each: 25 MB a block in bfloat16


@dataclass(frozen=True)
class Answers:
    """Cached tokens: `hidden` [m, d] that predict `targets` [m]; `owner` [m] ascending unit numbers; `weight` [m].

    A unit's weights sum to 1: the mean over its conversations of the mean over each one's tokens.
    """

    hidden: torch.Tensor
    targets: torch.Tensor
    owner: npt.NDArray[np.int64]
    weight: torch.Tensor


class Adapter:
    """Rank-8 adapter with bias, float32, as one flat vector [2 r d + d]: A [r, d], B [d, r], bias [d]."""

    def __init__(self, width: int, *, rank: int = RANK, device: torch.device | None = None) -> None:
        """A starts as a fixed public draw, B and bias as zero: the base model's own answers."""
        source = torch.Generator().manual_seed(0)
        start = torch.randn(rank, width, generator=source) / math.sqrt(width)
        self.rank, self.width = rank, width
        self.flat = torch.cat([start.flatten(), torch.zeros(width * rank + width)]).to(device or "cpu")

    @property
    def A(self) -> torch.Tensor:  # noqa: N802 - as the formula names it
        return self.flat[: self.rank * self.width].view(self.rank, self.width)

    @property
    def B(self) -> torch.Tensor:  # noqa: N802
        return self.flat[self.rank * self.width : 2 * self.rank * self.width].view(self.width, self.rank)

    @property
    def bias(self) -> torch.Tensor:
        return self.flat[2 * self.rank * self.width :]

    def apply(self, hidden: torch.Tensor) -> torch.Tensor:
        """h + B A h + bias, float32 [..., d]."""
        wide = hidden.float()
        return wide + (wide @ self.A.T) @ self.B.T + self.bias

    def tensors(self) -> Tensors:
        """What the artefact stores."""
        named = {"adapter.A": self.A, "adapter.B": self.B, "adapter.bias": self.bias}
        return {name: value.detach().cpu().numpy().copy() for name, value in named.items()}


def unit_gradients(adapter: Adapter, answers: Answers, vocabulary: torch.Tensor) -> torch.Tensor:
    """Gradient of each unit's own loss, float32 [units present, parameters], by batched products.

    With g_t the gradient at h'_t: bias Σ g_t, B Σ g_t (A h_t)ᵀ, A Σ (Bᵀ g_t) h_tᵀ. `vocabulary` [words, d].
    """
    outward = output_gradients(
        adapter.apply(answers.hidden), answers.targets, answers.weight, vocabulary=vocabulary
    )
    g, h = _by_unit(outward, answers.owner), _by_unit(answers.hidden.float(), answers.owner)
    to_a = torch.bmm((g @ adapter.B).transpose(1, 2), h)
    to_b = torch.bmm(g.transpose(1, 2), h @ adapter.A.T)
    return torch.cat([to_a.flatten(1), to_b.flatten(1), g.sum(dim=1)], dim=1)


def clipped_sum(gradients: torch.Tensor, clip: float | None) -> npt.NDArray[np.float64]:
    """Sum of the rows, each scaled to norm at most `clip` (None: privacy is off), float64; not finite counts as 0."""
    wide = torch.nan_to_num(gradients.double(), nan=0.0, posinf=0.0, neginf=0.0)
    if clip is not None:
        wide = wide * (clip / wide.norm(dim=1, keepdim=True).clamp(min=clip))
    total: npt.NDArray[np.float64] = wide.sum(dim=0).cpu().numpy()
    return total


def quality(adapter: Adapter, answers: Answers, vocabulary: torch.Tensor) -> npt.NDArray[np.float64]:
    """(share of tokens guessed, loss in nats) of each unit present, float64 [units, 2]; private until noised."""
    scores = token_scores(
        adapter.apply(answers.hidden), answers.targets, answers.weight, vocabulary=vocabulary
    )
    return by_owner(scores, answers.owner)


def token_scores(
    hidden: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor, *, vocabulary: torch.Tensor
) -> torch.Tensor:
    """weight · (guessed right, loss in nats) of each token, float32 [m, 2]; `hidden` [m, d] meets the vocabulary."""
    parts = []
    for rows in _blocks(len(targets)):
        logits = (hidden[rows].to(vocabulary.dtype) @ vocabulary.T).float()
        loss = torch.nn.functional.cross_entropy(logits, targets[rows], reduction="none")
        right = (logits.argmax(dim=1) == targets[rows]).float()
        parts.append(torch.stack([right, loss], dim=1) * weight[rows, None])
    return torch.cat(parts)


def by_owner(scores: torch.Tensor, owner: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Sums of rows [m, 2] by owner, ascending, float64 [owners, 2]."""
    _, unit = np.unique(owner, return_inverse=True)
    summed = torch.zeros(int(unit.max()) + 1, scores.shape[1], dtype=torch.float64)
    summed.index_add_(0, torch.from_numpy(unit), scores.double().cpu())
    found: npt.NDArray[np.float64] = summed.numpy()
    return found


def output_gradients(
    hidden: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor, *, vocabulary: torch.Tensor
) -> torch.Tensor:
    """Gradient of weight · cross-entropy at each `hidden` [m, d], float32: (softmax − onehot) · vocabulary.

    In closed form: autograd through the vocabulary would keep every logit in float32.
    """
    found = torch.empty(len(targets), hidden.shape[1], device=vocabulary.device)
    for rows in _blocks(len(targets)):
        shares = torch.softmax(hidden[rows].to(vocabulary.dtype) @ vocabulary.T, dim=1)
        expected = (shares @ vocabulary).float()
        actual = vocabulary[targets[rows]].float()
        found[rows] = (expected - actual) * weight[rows, None]
    return found


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, _ROWS_AT_ONCE):
        yield slice(start, min(start + _ROWS_AT_ONCE, count))


def _by_unit(rows: torch.Tensor, owner: npt.NDArray[np.int64]) -> torch.Tensor:
    """Rows [m, d] sorted by owner to [units, longest, d], padded with zeros, which add nothing to a sum."""
    _, first, unit, counts = np.unique(owner, return_index=True, return_inverse=True, return_counts=True)
    place = np.arange(len(owner)) - first[unit]
    padded = torch.zeros(len(first), int(counts.max()), rows.shape[1], device=rows.device)
    padded[torch.from_numpy(unit), torch.from_numpy(place)] = rows
    return padded
