"""What epsilon means for one person: the formula, against attackers who do their best, and the sentences."""

from __future__ import annotations

import math

import pytest
from scipy.stats import norm

from modeling.core import accounting, plain_words
from modeling.core.types import Mechanism


def test_the_formula_at_epsilon_one_is_the_73_percent_that_people_quote() -> None:
    assert accounting.odds_bound(1.0, 0.0) == pytest.approx(math.e / (1 + math.e))
    assert accounting.odds_bound(0.0, 0.0) == 0.5
    assert accounting.odds_bound(0.0, 0.1) == pytest.approx(
        0.55
    )  # (1 + delta)/2: delta is a chance of seeing all
    assert accounting.odds_bound(1000.0, 0.0) == 1.0
    assert accounting.odds_bound(1.0, 1e-2) > accounting.odds_bound(1.0, 0.0)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_randomised_response_reaches_the_bound(epsilon: float) -> None:
    """The truth with probability e^epsilon/(1 + e^epsilon): who believes the answer is right exactly so often."""
    truth = 1 / (1 + math.exp(-epsilon))
    assert truth == pytest.approx(accounting.odds_bound(epsilon, 0.0))


@pytest.mark.parametrize(("adjacency", "shift"), [("zero_out", 1.0), ("replace_one", 2.0)])
def test_the_best_attack_on_gaussian_noise_is_as_often_right_as_we_say(adjacency: str, shift: float) -> None:
    """Sums 0 or `shift` with noise sigma: the likelihood ratio test cuts in the middle."""
    sigma = 1.7
    right = norm.cdf(shift / 2 / sigma)
    found = accounting.distinguishing([Mechanism("train", sigma, 1.0, 1)], adjacency=adjacency)  # type: ignore[arg-type]
    assert found == pytest.approx(right, abs=1e-9)


def test_sampling_lowers_the_odds_and_agrees_with_full_batches_at_the_end() -> None:
    full = accounting.distinguishing([Mechanism("train", 2.0, 1.0, 10)])
    nearly = accounting.distinguishing([Mechanism("train", 2.0, 0.99999, 10)])
    rarely = accounting.distinguishing([Mechanism("train", 2.0, 0.05, 10)])
    assert nearly == pytest.approx(full, abs=2e-3)
    assert 0.5 < rarely < 0.6 < full


@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
def test_the_exact_odds_never_exceed_what_epsilon_promises(epsilon: float) -> None:
    sigma = accounting.sigma_for(epsilon, 1e-5, count=50)
    for repeats in (0.0, 10.0):
        sigma = accounting.sigma_for(epsilon, 1e-5, count=50, repeats=repeats)
        found = accounting.distinguishing([Mechanism("train", sigma, 1.0, 50, repeats=repeats)])
        assert 0.5 < found <= accounting.odds_bound(epsilon, 1e-5)


def test_no_noise_is_certainty_and_nothing_released_is_guessing() -> None:
    assert accounting.distinguishing([Mechanism("train", 0.0, 1.0, 1)]) == 1.0
    assert accounting.distinguishing([]) == 0.5


@pytest.mark.parametrize("person", ["patient", "customer", "shopper"])
def test_the_sentences_speak_of_the_verticals_person(person: str) -> None:
    mechanisms = [Mechanism("train", accounting.sigma_for(8.0, 1e-5, count=1), 1.0, 1)]
    lines = plain_words.sentences(8.0, 1e-5, person, found=plain_words.odds(mechanisms), replace_one=19.1)
    assert all(person in line for line in lines)
    assert "at most 79.8 % of the time" in lines[0]
    assert "95.3 %" in lines[1]  # Phi(mu) = .9522, rounded up
    assert "99.97 %" in lines[2]


def test_without_the_mechanisms_the_bound_of_epsilon_is_said() -> None:
    lines = plain_words.sentences(1.0, 1e-5, "patient")
    assert len(lines) == 2
    assert "at most 73.2 %" in lines[0]


def test_percentages_are_rounded_up_and_never_to_certainty() -> None:
    assert plain_words.percent(0.5) == "50.0 %"
    assert plain_words.percent(0.73101) == "73.2 %"
    assert plain_words.percent(0.99966) == "99.97 %"
    assert plain_words.percent(0.999999) == "nearly 100 %"
