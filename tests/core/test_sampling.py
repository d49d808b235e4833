"""Every unit joins a batch by its own coin."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from modeling.core.sampling import PoissonSampler


def test_units_join_with_the_planned_probability() -> None:
    sampler, draws = PoissonSampler(400, 0.1), 2000
    counts, sizes = np.zeros(400), []
    for _ in range(draws):
        batch = sampler.draw()
        counts[batch] += 1
        sizes.append(len(batch))
    # Every unit's count is Binomial(draws, q), so is the spread of the batch sizes: no fixed batch, no favourite unit.
    scores = (counts - draws * 0.1) / np.sqrt(draws * 0.1 * 0.9)
    assert stats.kstest(scores, "norm").pvalue > 1e-6
    assert np.abs(scores).max() < 6
    assert np.var(sizes) == pytest.approx(400 * 0.1 * 0.9, rel=0.2)


def test_batches_are_independent() -> None:
    sampler = PoissonSampler(2000, 0.5)
    first, second = (np.isin(np.arange(2000), sampler.draw()) for _ in range(2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.12


def test_a_batch_may_be_empty_and_full_rate_takes_everyone() -> None:
    sampler = PoissonSampler(3, 0.1)
    assert any(len(sampler.draw()) == 0 for _ in range(200))
    assert list(PoissonSampler(5, 1.0).draw()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5])
def test_refuses_a_rate_outside_the_unit_interval(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        PoissonSampler(10, rate)
