"""Poisson sampling over privacy units: each unit joins a batch by its own coin from a cryptographic source."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modeling.core.noise import Keystream


class PoissonSampler:
    """Batches of unit indices, every unit in with probability `rate`, independently. An empty batch is a batch."""

    def __init__(self, units: int, rate: float) -> None:
        if not 0 < rate <= 1:
            raise ValueError("the sampling rate must lie in (0, 1]")
        self.units = units
        self.rate = rate
        self._stream = Keystream()

    def draw(self) -> npt.NDArray[np.int64]:
        """Indices of the sampled units, ascending, int64 [batch]; the batch size varies by design."""
        return np.flatnonzero(self._stream.uniform(self.units) < self.rate).astype(np.int64)
