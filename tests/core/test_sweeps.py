"""A sweep: its epsilon is that of the whole procedure, its length is no secret's witness, and a cut one ends."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.dp_event import RepeatAndSelectDpEvent
from dp_accounting.rdp import RdpAccountant

from modeling.core import accounting, planning, sweeps
from modeling.core.heads.classify_rows import Rows
from modeling.core.heads.classify_trials import TextTrials
from modeling.core.spending import Spending
from modeling.core.types import (
    CannotTrain,
    Charge,
    Checkpoint,
    CoreError,
    Event,
    HeldOut,
    Mechanism,
    Plan,
    Progress,
    Recipe,
    Shape,
    Trained,
)

LABELS = ("a", "b", "c")
SHAPE = Shape(900, 300, 1200, classes=3)
RECIPE = Recipe("classification", "minilm-l6", labels=LABELS, epsilon=8.0, sweep_runs=10)


def _reference(mechanism: Mechanism) -> RdpAccountant:
    event = GaussianDpEvent(mechanism.sigma)
    if mechanism.sampling_rate < 1:
        event = PoissonSampledDpEvent(mechanism.sampling_rate, event)
    whole = SelfComposedDpEvent(event, mechanism.count)
    accountant = RdpAccountant(list(accounting.ORDERS))
    accountant.compose(RepeatAndSelectDpEvent(whole, mechanism.repeats, math.inf))
    return accountant


@pytest.mark.parametrize("runs", [1, 5, 10, 30])
@pytest.mark.parametrize(("sigma", "rate", "count"), [(10.0, 1.0, 100), (30.0, 1.0, 100), (1.5, 0.0512, 300)])
def test_epsilon_of_a_selection_is_that_of_dp_accounting(
    sigma: float, rate: float, count: int, runs: float
) -> None:
    mechanism = Mechanism("train", sigma, rate, count, repeats=runs)
    ours, reference = accounting.epsilon([mechanism], 1e-5), _reference(mechanism).get_epsilon(1e-5)
    # One run's delta is exact at q = 1, where the reference goes through Renyi: never far above it, and below for many.
    assert 0.6 * reference <= ours <= 1.03 * reference
    assert ours > accounting.epsilon([replace(mechanism, repeats=0.0)], 1e-5)
    if rate < 1:
        assert reference <= 1.001 * ours  # orders between whole ones lie on chords here: a little above


def test_the_published_cost_of_tuning() -> None:
    """Privacy notes, section 3: one run of 3.14 (Renyi) becomes 5.04 with five runs on average, 6.8 with ten."""
    for runs, published in ((5, 5.04), (10, 6.8)):
        mechanism = Mechanism("train", 1.5, 0.0512, 300, repeats=runs)
        assert accounting.epsilon([mechanism], 2e-5) == pytest.approx(published, abs=0.06)


@pytest.mark.parametrize("target", [1.0, 3.0, 8.0])
def test_noise_for_a_selection_meets_the_target(target: float) -> None:
    sigma = accounting.sigma_for(target, 1e-5, count=50, repeats=10)
    found = accounting.epsilon([Mechanism("train", sigma, 1.0, 50, repeats=10)], 1e-5)
    assert target - 0.02 <= found <= target
    assert _reference(Mechanism("train", sigma, 1.0, 50, repeats=10)).get_epsilon(1e-5) >= found


def test_replace_one_costs_more() -> None:
    for rate in (1.0, 0.05):
        mechanism = Mechanism("train", 3.0, rate, 50, repeats=10)
        one = accounting.epsilon([mechanism], 1e-5)
        assert accounting.epsilon([mechanism], 1e-5, adjacency="replace_one") > one


def test_a_sweep_of_ten_costs_what_was_asked_and_not_what_its_best_run_costs() -> None:
    plan = planning.plan(RECIPE, SHAPE)
    best = [replace(item, repeats=0.0) for item in plan.mechanisms]
    assert plan.epsilon is not None
    assert 7.98 <= plan.epsilon <= 8.0
    assert accounting.epsilon(best, plan.delta) < 0.75 * plan.epsilon
    # All runs published would cost far more: ten compositions, not one selection.
    ten = [replace(item, count=10 * item.count) for item in best]
    assert accounting.epsilon(ten, plan.delta) > plan.epsilon


def test_candidates_cost_and_last_the_same() -> None:
    plan = planning.plan(RECIPE, SHAPE)
    candidates = sweeps.grid(plan)
    assert len(set(candidates)) == len(candidates) == 18
    for candidate in candidates:
        one = candidate.settings(plan)
        (mechanism,) = one.mechanisms
        train = plan.mechanisms[0]
        assert (mechanism.sigma, mechanism.count, mechanism.sampling_rate) == (train.sigma, train.count, 1.0)
        assert one.steps == plan.steps
        assert mechanism.repeats == 0


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"sweep_runs": 2.0}, "invalid_sweep"),
        ({"sweep_runs": 1000.0}, "invalid_sweep"),
        ({"epsilon": None, "privacy_off_reason": "public rows"}, "no_sweep"),
        ({"method": "lora"}, "no_sweep"),
    ],
)
def test_what_cannot_be_swept_is_refused(changes: dict[str, object], code: str) -> None:
    with pytest.raises(CannotTrain) as refused:
        planning.plan(replace(RECIPE, **changes), SHAPE)
    assert refused.value.code == code


def test_too_few_held_out_people_are_refused_with_what_is_enough() -> None:
    with pytest.raises(CannotTrain, match=r"about [0-9]+ would be enough"):
        planning.plan(replace(RECIPE, epsilon=3.0), Shape(4000, 25, 4025, classes=3))


def _trials(seed: int = 0) -> TextTrials:
    random = np.random.default_rng(seed)
    centres = np.eye(3, 16, dtype=np.float32)

    def rows(people: int) -> Rows:
        labels = random.integers(0, 3, people)
        features = centres[labels] + 0.4 * random.standard_normal((people, 16)).astype(np.float32)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        return Rows([""] * people, labels, np.arange(people), features.astype(np.float32))

    return TextTrials(rows(SHAPE.train_units), rows(SHAPE.held_out_units), 0.1 * centres)


def _events(
    plan: Plan, trials: TextTrials, resume: Checkpoint | None, spent: dict[str, int]
) -> Iterator[Event]:
    state = sweeps.begin(plan, resume, spent)
    return sweeps.Sweep(plan, trials, state, Spending(plan, spent)).events()


def test_a_sweep_learns_and_charges_once_before_its_first_run() -> None:
    plan, trials = planning.plan(RECIPE, SHAPE), _trials()
    events = list(_events(plan, trials, None, {}))
    kinds = [type(event) for event in events]
    charges = [event for event in events if isinstance(event, Charge)]
    assert [(one.mechanism, one.first, one.count) for one in charges] == [
        ("train", 0, plan.steps), ("sweep_score", 0, 1), ("held_out", 0, 1),
    ]  # fmt: skip
    assert kinds[:2] == [Charge, Charge]
    assert kinds.count(Progress) == sweeps.limit(10.0)  # however many runs were drawn
    done = events[-1]
    assert isinstance(done, Trained)
    assert done.report["sweep"]["expected_runs"] == 10
    assert done.report["sweep"]["chosen"]["start"] in ("names", "zero")
    looks = [event for event in events if isinstance(event, HeldOut)]
    assert len(looks) == 1  # only the winner, with noise of its own
    assert done.metrics["accuracy"] == looks[0].accuracy > 0.6
    # Nothing that leaves says how many runs counted.
    assert "runs" not in str(
        {key: value for key, value in done.report["sweep"].items() if key != "expected_runs"}
    )
    assert done.metrics.keys() == {"accuracy", "accuracy_noise_error"}


def _stopped(plan: Plan, trials: TextTrials, *, checkpoints: int) -> tuple[Checkpoint, dict[str, int]]:
    """The last stored checkpoint and the charges of an attempt that ended after so many checkpoints."""
    spent: dict[str, int] = {}
    kept: list[Checkpoint] = []
    for event in _events(plan, trials, None, {}):
        if isinstance(event, Charge):
            spent[event.mechanism] = event.first + event.count
        if isinstance(event, Checkpoint):
            kept.append(event)
        if len(kept) == checkpoints:
            break
    return kept[-1], spent


def test_a_sweep_stopped_between_two_runs_goes_on_without_a_new_charge() -> None:
    plan, trials = planning.plan(RECIPE, SHAPE), _trials()
    checkpoint, spent = _stopped(plan, trials, checkpoints=12)  # two a run: six runs are done
    events = list(_events(plan, trials, checkpoint, spent))
    assert [event.mechanism for event in events if isinstance(event, Charge)] == ["held_out"]
    assert sum(isinstance(event, Progress) for event in events) == sweeps.limit(10.0) - 6
    assert isinstance(events[-1], Trained)


def test_a_sweep_cut_inside_a_run_ends_with_its_cause() -> None:
    plan, trials = planning.plan(RECIPE, SHAPE), _trials()
    checkpoint, spent = _stopped(plan, trials, checkpoints=11)
    for state in (checkpoint, None):
        with pytest.raises(CoreError) as ended:
            list(_events(plan, trials, state, spent))
        assert ended.value.code == "sweep_interrupted"


def test_no_run_drawn_leaves_the_public_start() -> None:
    plan, trials = planning.plan(RECIPE, SHAPE), _trials()
    sweep = sweeps.Sweep(plan, trials, sweeps.State(drawn=0), Spending(plan, {}))
    done = list(sweep.events())[-1]
    assert isinstance(done, Trained)
    assert done.report["sweep"]["chosen"] == {}
    expected = trials.untrained(plan)
    assert all(np.array_equal(done.tensors[name], expected[name]) for name in expected)


def test_the_best_score_wins() -> None:
    plan, trials = planning.plan(RECIPE, SHAPE), _trials()
    quiet = replace(
        plan, mechanisms=(plan.mechanisms[0], *(replace(m, sigma=1e-9) for m in plan.mechanisms[1:]))
    )
    best: list[float] = []
    for drawn in (1, 12):
        sweep = sweeps.Sweep(quiet, trials, sweeps.State(drawn=drawn), Spending(quiet, {}))
        list(sweep.events())
        assert sweep.state.best is not None
        assert sweep.state.score == pytest.approx(trials.scores(sweep.state.best).sum(), abs=1e-6)
        best.append(sweep.state.score)
    assert best[1] >= best[0] - 0.02 * SHAPE.held_out_units


def test_the_number_of_runs_is_poisson() -> None:
    draws = np.array([sweeps.draw(10.0) for _ in range(4000)])
    assert draws.mean() == pytest.approx(10, abs=0.3)
    assert draws.var() == pytest.approx(10, abs=1.2)
    assert draws.max() <= sweeps.limit(10.0)
