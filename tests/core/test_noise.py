"""The noise is Gaussian, never repeats and has no seed."""

from __future__ import annotations

import inspect
import os

import numpy as np
from scipy import stats

from modeling.core import noise
from modeling.core.noise import Keystream, NoiseSource


def test_ten_thousand_draws_are_standard_normal() -> None:
    draws = NoiseSource().normal(10_000)
    assert draws.dtype == np.float64
    assert stats.kstest(draws, "norm").pvalue > 1e-6
    # Control: the same test finds a scale that is 10 % off.
    assert stats.kstest(1.1 * draws, "norm").pvalue < 1e-3
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.06


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
