"""Per-unit clipped gradients of a linear softmax or sigmoid head on fixed features, whole data at once, in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modeling.core.predictor import sigmoid, softmax
from modeling.core.types import Array

BIAS_FEATURE = 0.5
POWER_ITERATIONS = 20
LARGEST_FEATURE = 1e6


@dataclass(frozen=True)
class _Group:
    """Units that own `size` rows each: their rows lie in `rows`, unit after unit."""

    rows: slice
    size: int
    gram: Array  # [units, size, size]: inner products of a unit's rows, bias feature included


def with_bias(features: Array, bias: float = BIAS_FEATURE) -> Array:
    """Features [n, d] with the constant bias feature appended: [n, d + 1]."""
    column = np.full((len(features), 1), bias, dtype=np.float32)
    return np.concatenate([np.asarray(features, dtype=np.float32), column], axis=1)


class SoftmaxHead:
    """Training rows of a linear softmax classifier, grouped so that clipping a whole unit costs no more than a row.

    A unit's gradient is the mean over its rows of x ⊗ (p − y). Its norm follows from inner products,
    |Σ x_i ⊗ d_i|² = Σ_ij (x_i·x_j)(d_i·d_j), so no gradient of a single unit is ever written out.
    """

    def __init__(
        self,
        features: Array,
        labels: npt.NDArray[np.int64],
        units: npt.NDArray[np.int64],
        *,
        bias: float = BIAS_FEATURE,
    ) -> None:
        """`features` [n, d] without the bias; `labels` [n] class indices ([n, K] of 0 and 1 for several labels a row);
        `units` [n] whose row it is.
        """
        _, inverse, sizes = np.unique(units, return_inverse=True, return_counts=True)
        order = np.lexsort((inverse, sizes[inverse]))
        self._x = with_bias(features, bias)[order]
        # Features are of about unit norm. What is not finite, or whose products would not be, counts as a row of zeros:
        # one NaN in the sum would tell that the row is there.
        self._x[~(np.abs(self._x).max(axis=1) < LARGEST_FEATURE)] = 0.0
        self._y = labels[order]
        self.units = len(sizes)
        self._groups = self._grouped(sizes[inverse][order])

    def _grouped(self, sizes: npt.NDArray[np.int64]) -> list[_Group]:
        groups = []
        for size in np.unique(sizes):
            start, stop = np.searchsorted(sizes, [size, size + 1])
            x = self._x[start:stop].reshape(-1, size, self._x.shape[1])
            groups.append(_Group(slice(int(start), int(stop)), int(size), x @ x.transpose(0, 2, 1)))
        return groups

    def gradient(self, weights: Array, *, clip: float | None) -> Array:
        """Sum over units of the unit's gradient, clipped to norm `clip` (None: not clipped): [K, d + 1]."""
        residual = self._residual(self._x @ weights.T)
        for group in self._groups:
            rows = residual[group.rows].reshape(-1, group.size, residual.shape[1])
            rows *= self._factors(rows, group, clip)[:, None, None]
        return np.asarray(residual.T @ self._x, dtype=np.float32)

    def spread(self) -> float:
        """The largest eigenvalue of the rows' mean x ⊗ x, by power iteration.

        It reads private rows without noise, so it is only for runs without privacy.
        """
        vector: Array = np.ones(self._x.shape[1], dtype=np.float32)
        value = 0.0
        for _ in range(POWER_ITERATIONS):
            turned = self._x.T @ (self._x @ vector) / max(len(self._x), 1)
            value = float(np.linalg.norm(turned))
            vector = np.asarray(turned / (value or 1.0), dtype=np.float32)
        return value

    def _residual(self, logits: Array) -> Array:
        """The loss's derivative by the logits, [n, K]: p − y of the softmax."""
        residual = softmax(logits)
        residual[np.arange(len(self._y)), self._y] -= 1.0
        return residual

    def _factors(self, rows: Array, group: _Group, clip: float | None) -> Array:
        """What each unit's rows are multiplied by: 1/size and the clip, [units]."""
        if clip is None:
            return np.full(len(rows), 1 / group.size, dtype=np.float32)
        if group.size == 1:
            squared = group.gram[:, 0, 0] * np.einsum("uik,uik->u", rows, rows)
        else:
            squared = np.einsum("uij,uij->u", group.gram, rows @ rows.transpose(0, 2, 1))
        norms = np.sqrt(np.maximum(squared, 0.0)) / group.size
        return np.asarray(np.minimum(1.0, clip / (norms + 1e-6)) / group.size, dtype=np.float32)


class SigmoidHead(SoftmaxHead):
    """The same for several labels a row: one logistic loss a label, added up; `labels` [n, K] of 0 and 1.

    A row's gradient is x ⊗ (σ(z) − y), of norm |x| · |σ(z) − y|.
    """

    def _residual(self, logits: Array) -> Array:
        return sigmoid(logits) - self._y


def head_for(
    features: Array, labels: npt.NDArray[np.int64], units: npt.NDArray[np.int64], *, bias: float
) -> SoftmaxHead:
    """The head that fits the labels: class indices [n], or 0 and 1 for each label [n, K]."""
    return (SigmoidHead if labels.ndim == 2 else SoftmaxHead)(features, labels, units, bias=bias)
