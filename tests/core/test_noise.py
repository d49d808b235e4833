"""The noise is Gaussian, never repeats and has no seed."""

from __future__ import annotations

import inspect
import os

import numpy as np
import pytest
from scipy import stats

from modeling.core import noise
from modeling.core.noise import Keystream, NoiseSource


def test_ten_thousand_draws_are_standard_normal() -> None:
    draws = NoiseSource().normal(10_000)
    assert draws.dtype == np.float64
    assert stats.kstest(draws, "norm").pvalue > 1e-6
    # Control: the same test finds a scale that is 20 % off.
    assert stats.kstest(1.2 * draws, "norm").pvalue < 1e-3
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.06


def test_the_noise_of_a_step_is_gaussian_at_the_planned_scale() -> None:
    """As the optimizer adds it, in float32: 10,000 values, and trainers with too little noise as controls."""
    values = np.zeros(10_000, dtype=np.float32)
    NoiseSource().add_to(values, 3.5)
    assert stats.kstest(values / 3.5, "norm").pvalue > 1e-6
    for broken in (4.0, 1.2):  # noise/4, and a sixth too little
        assert stats.kstest(values / 3.5 / broken, "norm").pvalue < 1e-3


def test_long_draws_are_as_normal_as_short_ones() -> None:
    """From 65,536 values on the sines come from torch: the same distribution, and halves are unrelated."""
    draws = NoiseSource().normal(200_000)
    assert stats.kstest(draws, "norm").pvalue > 1e-6
    assert abs(draws.mean()) < 6 / np.sqrt(200_000)
    assert abs(draws.std() - 1) < 6 / np.sqrt(400_000)
    assert abs(stats.kurtosis(draws)) < 6 * np.sqrt(24 / 200_000)
    assert abs(np.corrcoef(draws[:100_000], draws[100_000:])[0, 1]) < 6 / np.sqrt(100_000)
    assert np.abs(draws).max() > 4


def test_noise_is_added_to_what_is_there() -> None:
    values = np.full(200_001, 1000.0, dtype=np.float32)
    NoiseSource().add_to(values, 2.0)
    assert values.dtype == np.float32
    assert abs(values.mean() - 1000) < 12 / np.sqrt(200_000)
    assert values.std() == pytest.approx(2.0, rel=0.02)


def test_no_draw_repeats_within_or_between_sources() -> None:
    first, second = NoiseSource(), NoiseSource()
    draws = np.concatenate([first.normal(70_000), first.normal(70_000), second.normal(70_000)])
    assert len(np.unique(draws)) == len(draws)


def test_a_forked_child_draws_its_own_noise() -> None:
    source = NoiseSource()
    source.normal(4)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, source.normal(4).tobytes())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = np.frombuffer(os.read(reader, 32))
    assert not np.isin(theirs, source.normal(4)).any()


def test_uniforms_fill_the_unit_interval() -> None:
    values = Keystream().uniform(100_000)
    assert 0 <= values.min() < 1e-3
    assert 1 - 1e-3 < values.max() < 1
    assert stats.kstest(values, "uniform").pvalue > 1e-6


def test_nothing_takes_or_keeps_a_seed() -> None:
    assert "seed" not in {
        name for _, item in inspect.getmembers(noise, inspect.isclass) for name in vars(item)
    }
    assert list(inspect.signature(NoiseSource).parameters) == []
    assert list(inspect.signature(Keystream).parameters) == []
