"""The proof of the accountant: epsilon on a grid of settings against PLD, Renyi and the PRV accountant of Opacus."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from functools import cache

import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant

from modeling.core import accounting
from modeling.core.types import Mechanism
from tests.core.test_accounting import TABLE

Setting = tuple[float, float, int, float]
RATES = (0.002, 0.01, 0.05, 0.2, 1.0)
SIGMAS = (0.6, 0.8, 1.0, 1.5, 3.0)
STEPS = (1, 30, 200, 1000)
DELTAS = (1e-5, 1e-7)
WORST = 20.0  # above this epsilon says nothing, and the PRV accountant needs minutes and loses its precision


def settings() -> list[Setting]:
    """200 of them, the table of the privacy notes first."""
    grid = [
        (q, sigma, steps, delta) for q in RATES for sigma in SIGMAS for steps in STEPS for delta in DELTAS
    ]
    table = [(q, sigma, steps, delta) for q, sigma, steps, delta, *_rest in TABLE]
    return [*table, *grid][:200]


def _mechanism(setting: Setting) -> Mechanism:
    q, sigma, steps, _delta = setting
    return Mechanism("train", sigma, q, steps)


def faults(setting: Setting) -> Iterator[str]:
    """What is wrong with our epsilon at one setting."""
    q, sigma, steps, delta = setting
    mechanism = _mechanism(setting)
    ours = accounting.epsilon([mechanism], delta)
    step = GaussianDpEvent(sigma) if q >= 1 else PoissonSampledDpEvent(q, GaussianDpEvent(sigma))
    event = SelfComposedDpEvent(step, steps)
    pld = (
        PLDAccountant(value_discretization_interval=accounting.PLD_INTERVAL).compose(event).get_epsilon(delta)
    )
    # Of full batches ours is the exact curve, and the reference is rounded up: by at most its interval, and where
    # epsilon is in the hundreds (nobody may ask for that) by a thousandth of it.
    slack = 1e-6 if q < 1 else max(accounting.PLD_INTERVAL, 1.1e-3 * pld if pld > 100 else 0.0)
    if not pld - slack <= ours <= pld + 0.02:
        yield f"{setting}: {ours} outside [PLD, PLD + .02], PLD {pld}"
    if accounting.filter_epsilon(accounting.rdp(mechanism), delta) < ours - 1e-9:
        yield f"{setting}: Renyi below ours"
    prv = prv_epsilon(setting) if ours < WORST else None
    if prv is not None and abs(prv - ours) > 0.03:
        yield f"{setting}: Opacus PRV {prv}, ours {ours}"


@cache
def _reference(q: float, sigma: float, steps: int) -> PLDAccountant:
    """dp-accounting's own composition; the same for every delta. Full batches as the one Gaussian that they are, since
    a thousand rounded steps add up to far more than the interval.
    """
    if q >= 1:
        sigma, steps = sigma / math.sqrt(steps), 1
    step = GaussianDpEvent(sigma) if q >= 1 else PoissonSampledDpEvent(q, GaussianDpEvent(sigma))
    accountant = PLDAccountant(value_discretization_interval=accounting.PLD_INTERVAL)
    return accountant.compose(SelfComposedDpEvent(step, steps))


@cache
def prv_epsilon(setting: Setting) -> float | None:
    """By Opacus, where it can: it fails at the far ends of the grid, and says so by an exception or an infinity."""
    from opacus.accountants import PRVAccountant

    q, sigma, steps, delta = setting
    accountant = PRVAccountant()
    accountant.history = [(sigma, q, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = float(accountant.get_epsilon(delta=delta, eps_error=0.01, delta_error=delta / 1000))
        except (ValueError, RuntimeError, MemoryError, OverflowError):
            return None
    return found if found < WORST else None


def test_the_grid_is_what_it_says() -> None:
    assert len(set(settings())) == 200
    assert settings()[: len(TABLE)] == [row[:4] for row in TABLE]


def test_a_tenth_of_the_grid() -> None:
    small = [
        one for one in settings()[::9] if one[0] * one[2] <= 40
    ]  # the longest compositions take seconds each
    assert len(small) >= 15
    assert [fault for one in small for fault in faults(one)] == []


def test_the_check_finds_an_epsilon_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = accounting.epsilon
    monkeypatch.setattr(accounting, "epsilon", lambda *args, **more: 0.97 * honest(*args, **more))
    assert list(faults((0.05, 1.0, 30, 1e-5)))


@pytest.mark.slow
def test_the_whole_grid(capsys: pytest.CaptureFixture[str]) -> None:
    found = [fault for one in settings() for fault in faults(one)]
    small = [one for one in settings() if accounting.epsilon([_mechanism(one)], one[3]) < WORST]
    computed = sum(prv_epsilon(one) is not None for one in small)
    with capsys.disabled():
        print(f"\n200 settings, {len(found)} faults; Opacus PRV computes {computed} of them")
    assert found == []
    assert computed >= 100
