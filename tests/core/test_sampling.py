"""Every unit joins a batch by its own coin."""

from __future__ import annotations

import os

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


def evenness(counts: np.ndarray, *, draws: int, rate: float) -> float:
    """Two-sided p-value of the units' counts over draws being binomial: a shuffle's are too even, wrong q's are off."""
    scores = (counts - draws * rate) ** 2 / (draws * rate * (1 - rate))
    tail = stats.chi2(len(counts)).cdf(scores.sum())
    return float(2 * min(tail, 1 - tail))


def test_frequencies_pass_a_chi_square_test_that_broken_samplers_fail() -> None:
    """Counts of units over draws are binomial: not as even as a shuffle's, and not those of another q."""
    rng = np.random.default_rng()
    units, rate, draws = 300, 0.2, 400

    def p_value(counts: np.ndarray) -> float:
        return evenness(counts, draws=draws, rate=rate)

    sampler = PoissonSampler(units, rate)
    ours = sum(np.bincount(sampler.draw(), minlength=units) for _ in range(draws))
    assert p_value(ours) > 1e-7
    # A loader that shuffles: each unit exactly once in every epoch of 1/q batches.
    shuffled = sum(np.bincount(rng.permutation(units), minlength=units) for _ in range(int(draws * rate)))
    wrong = sum(np.bincount(np.flatnonzero(rng.random(units) < 0.16), minlength=units) for _ in range(draws))
    assert p_value(shuffled) < 1e-7
    assert p_value(wrong) < 1e-7


def test_batch_sizes_vary_as_a_binomial() -> None:
    """An accountant's q holds for coins; batches of a fixed size, as a loader makes them, fail here."""
    sampler = PoissonSampler(1000, 0.1)
    sizes = np.array([len(sampler.draw()) for _ in range(1000)])
    dispersion = 999 * sizes.var(ddof=1) / (1000 * 0.1 * 0.9)
    assert 1e-7 < stats.chi2(999).cdf(dispersion) < 1 - 1e-7
    assert stats.chi2(999).cdf(999 * np.full(1000, 100).var() / 90) < 1e-7  # the control


def test_a_forked_child_draws_its_own_batches() -> None:
    sampler = PoissonSampler(4000, 0.5)
    sampler.draw()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, np.isin(np.arange(4000), sampler.draw()).tobytes())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = np.frombuffer(os.read(reader, 4000), dtype=bool)
    mine = np.isin(np.arange(4000), sampler.draw())
    assert abs(np.corrcoef(theirs, mine)[0, 1]) < 0.1


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
