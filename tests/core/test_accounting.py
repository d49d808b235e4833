"""Epsilon against Opacus' PRV accountant, dp-accounting's accountants and known values."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings

import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from modeling.core import accounting
from modeling.core.types import Mechanism

# q, sigma, steps, delta, PLD zero-out, PLD replace-one: privacy notes, section 3
TABLE = [
    (0.0149, 0.6, 200, 1e-5, 5.85, 6.42),
    (0.0205, 1.0, 1000, 1e-5, 4.00, 6.41),
    (0.0512, 1.5, 300, 2e-5, 2.84, 5.17),
    (0.0848, 1.0, 400, 1e-5, 12.06, 20.1),
    (0.01, 0.8, 20000, 1e-6, 16.67, 27.5),
]


def _mechanism(rate: float, sigma: float, steps: int) -> Mechanism:
    return Mechanism("train", sigma, rate, steps)


@pytest.mark.parametrize(("rate", "sigma", "steps", "delta", "zero_out", "replace_one"), TABLE)
def test_epsilon_has_the_published_values(
    rate: float, sigma: float, steps: int, delta: float, zero_out: float, replace_one: float
) -> None:
    mechanism = _mechanism(rate, sigma, steps)
    assert accounting.epsilon([mechanism], delta) == pytest.approx(zero_out, abs=0.02)
    assert accounting.epsilon([mechanism], delta, adjacency="replace_one") == pytest.approx(
        replace_one, abs=0.05
    )


@pytest.mark.parametrize(("rate", "sigma", "steps", "delta"), [row[:4] for row in TABLE[:4]])
def test_epsilon_agrees_with_the_prv_accountant_of_opacus(
    rate: float, sigma: float, steps: int, delta: float
) -> None:
    from opacus.accountants import PRVAccountant

    prv = PRVAccountant()
    prv.history = [(sigma, rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = prv.get_epsilon(delta=delta, eps_error=0.005)
    assert accounting.epsilon([_mechanism(rate, sigma, steps)], delta) == pytest.approx(reference, abs=0.03)


@pytest.mark.parametrize("rate", [0.01, 0.1])
@pytest.mark.parametrize("sigma", [0.7, 1.3])
@pytest.mark.parametrize("steps", [50, 500])
def test_epsilon_is_that_of_dp_accounting(rate: float, sigma: float, steps: int) -> None:
    event = SelfComposedDpEvent(PoissonSampledDpEvent(rate, GaussianDpEvent(sigma)), steps)
    reference = PLDAccountant(value_discretization_interval=1e-3).compose(event).get_epsilon(1e-5)
    ours = accounting.epsilon([_mechanism(rate, sigma, steps)], 1e-5)
    assert reference - 1e-6 <= ours <= reference + 0.02


def test_full_batch_is_the_exact_gaussian_curve() -> None:
    for target, mu in ((1.0, 0.268), (3.0, 0.719), (8.0, 1.666)):
        assert accounting.gaussian_mu(target, 1e-5) == pytest.approx(mu, abs=5e-4)
        sigma = accounting.sigma_for(target, 1e-5, count=150)
        ours = accounting.epsilon([Mechanism("train", sigma, 1.0, 150)], 1e-5)
        assert target - 1e-6 <= ours <= target
        event = SelfComposedDpEvent(GaussianDpEvent(sigma), 150)
        reference = PLDAccountant(value_discretization_interval=1e-4).compose(event).get_epsilon(1e-5)
        assert ours == pytest.approx(reference, abs=1e-3)


def test_replace_one_of_full_batch() -> None:
    for target, expected in ((8.0, 19.1), (3.0, 6.7), (1.0, 2.15)):
        step = Mechanism("train", accounting.sigma_for(target, 1e-5, count=1), 1.0, 1)
        assert accounting.epsilon([step], 1e-5, adjacency="replace_one") == pytest.approx(expected, abs=0.05)


def test_composition_within_a_partition_and_maximum_between() -> None:
    first, second = Mechanism("a", 2.0, 1.0, 3), Mechanism("b", 2.0, 1.0 - 1e-9, 3)
    together = accounting.epsilon([Mechanism("a", 2.0, 1.0, 6)], 1e-5)
    assert accounting.epsilon([first, second], 1e-5) == pytest.approx(together, abs=1e-3)
    apart = Mechanism("held_out", 2.0, 1.0, 3, partition="held_out")
    assert accounting.epsilon([first, apart], 1e-5) == accounting.epsilon([first], 1e-5)
    assert accounting.epsilon([], 1e-5) == 0.0
    assert accounting.epsilon([Mechanism("a", 0.0, 1.0, 1)], 1e-5) == math.inf


@pytest.mark.parametrize(
    ("target", "rate", "steps"), [(8.0, 0.04, 48), (3.0, 0.1, 200), (1.0, 0.03, 40), (0.5, 0.9, 10)]
)
def test_sigma_meets_the_target_from_below(target: float, rate: float, steps: int) -> None:
    sigma = accounting.sigma_for(target, 1e-5, count=steps, sampling_rate=rate)
    reached = accounting.epsilon([_mechanism(rate, sigma, steps)], 1e-5)
    assert target - 0.02 <= reached <= target


@pytest.mark.parametrize("target", [0.0, -1.0, math.nan])
def test_sigma_refuses_what_is_no_budget(target: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        accounting.sigma_for(target, 1e-5, count=10)


@pytest.mark.parametrize(("rate", "sigma", "steps", "delta"), [row[:4] for row in TABLE])
def test_renyi_bounds_pld_and_stays_near_the_reference(
    rate: float, sigma: float, steps: int, delta: float
) -> None:
    mechanism = _mechanism(rate, sigma, steps)
    ours = accounting.filter_epsilon(accounting.rdp(mechanism), delta)
    reference = RdpAccountant(list(accounting.ORDERS))
    reference.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(sigma)), steps)
    assert ours >= accounting.epsilon([mechanism], delta)
    assert reference.get_epsilon(delta) - 1e-6 <= ours <= 1.05 * reference.get_epsilon(delta)


def test_the_filter_in_its_own_units() -> None:
    for target, expected in ((8.0, 8.60), (3.0, 3.25), (1.0, 1.09)):
        vector = accounting.rdp(Mechanism("train", accounting.sigma_for(target, 1e-5, count=7), 1.0, 7))
        assert accounting.filter_epsilon(vector, 1e-5) == pytest.approx(expected, abs=0.01)
        assert len(vector) == len(accounting.ORDERS)
    assert accounting.filter_epsilon(accounting.add_rdp([]), 1e-5) == 0.0
    two = accounting.add_rdp([vector, vector])
    assert accounting.filter_epsilon(two, 1e-5) > accounting.filter_epsilon(vector, 1e-5)


def test_delta_rule_and_records() -> None:
    assert accounting.delta_for(100) == 1e-5
    assert accounting.delta_for(10**6) == pytest.approx(10**-6.6)
    mechanism = Mechanism("train", 0.1 + 0.2, 1 / 3, 7, clip=0.15)
    assert accounting.from_record(accounting.to_record(mechanism)) == mechanism


def test_accounting_does_not_import_torch() -> None:
    code = "import sys, modeling.core.accounting; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
