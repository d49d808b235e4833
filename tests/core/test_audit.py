"""The one-run audit: its arithmetic, what it says of honest trainers, and which broken ones it catches."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from modeling.core import accounting, audit, noise, planning, softmax_head
from modeling.core.heads.classify import fit
from modeling.core.heads.classify_rows import Rows
from modeling.core.noise import NoiseSource
from modeling.core.privacy import PrivateStepper, UnitOptimizer
from modeling.core.sampling import PoissonSampler
from modeling.core.types import Mechanism, Recipe, Shape, Trained
from tests.core.test_sampling import evenness
from tests.proofs.record import Proof

CANARIES = int(os.environ.get("AUDIT_CANARIES", "1500"))
RUNS = int(os.environ.get("AUDIT_RUNS", "20"))
CLASSES, OTHERS = 10, 1000
EPSILON = 3.0
LONG = 6.0  # length of a canary's features: an unclipped one counts several times


def head_audit(epsilon: float | None = EPSILON) -> audit.Audit:
    """Canaries with directions of their own through the real full-batch trainer."""
    random = np.random.default_rng()
    included = audit.coins(CANARIES)
    canaries = LONG * np.eye(CANARIES, CANARIES + 64, dtype=np.float32)
    labels = random.integers(CLASSES, size=CANARIES)
    people = random.normal(size=(OTHERS, CANARIES + 64)).astype(np.float32)
    people[:, :CANARIES] = 0
    people /= np.linalg.norm(people, axis=1, keepdims=True)
    features = np.concatenate([people, canaries[included]])
    owned = np.concatenate([random.integers(CLASSES, size=OTHERS), labels[included]])
    shape = Shape(OTHERS + CANARIES // 2, 0, OTHERS + CANARIES // 2, classes=CLASSES)
    names = tuple(str(index) for index in range(CLASSES))
    reason = "" if epsilon is not None else "a control"
    recipe = Recipe(
        "classification", "minilm-l6", "head", labels=names, epsilon=epsilon, privacy_off_reason=reason
    )
    plan = planning.plan(recipe, shape)
    rows = Rows([""] * len(features), owned.astype(np.int64), np.arange(len(features)), features)
    start = np.zeros((CLASSES, features.shape[1]), dtype=np.float32)
    trained = next(event for event in fit(plan, rows, rows.none(), start) if isinstance(event, Trained))
    logits = canaries @ trained.tensors["head.weight"].T
    scores = logits[np.arange(CANARIES), labels] - logits.mean(axis=1)
    return audit.judge(scores.astype(np.float64), included, claimed=epsilon, delta=plan.delta)


def step_audit(
    *, steps: int = 60, rate: float = 0.25, sampler: type[PoissonSampler] = PoissonSampler
) -> audit.Audit:
    """The same through the Poisson sampler and the private optimizer that every torch head uses."""
    included = audit.coins(CANARIES)
    canaries = LONG * torch.eye(CANARIES)
    mine = torch.from_numpy(np.flatnonzero(included))
    delta = accounting.delta_for(CANARIES)
    sigma = accounting.sigma_for(EPSILON, delta, count=steps, sampling_rate=rate)
    claimed = accounting.epsilon([Mechanism("train", sigma, rate, steps)], delta)
    model = torch.nn.Linear(CANARIES, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stepper = PrivateStepper(
        model, optimizer, sigma=sigma, clip=1.0, expected_batch=rate * len(mine), source=NoiseSource()
    )
    batches = sampler(len(mine), rate)
    for _ in range(steps):
        chosen = torch.from_numpy(batches.draw())
        if len(chosen):
            losses = -stepper.model(canaries[mine[chosen]]).squeeze(1)
            stepper.accumulate(losses, chosen)
        stepper.finish()
    scores = model.weight.detach().numpy()[0].astype(np.float64)
    return audit.judge(scores, included, claimed=claimed, delta=delta)


@contextmanager
def replaced(owner: object, name: str, value: Callable[..., object]) -> Iterator[None]:
    """Break one line of the trainer while the context lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, value)
        yield


_normal, _factors = NoiseSource.normal, softmax_head.SoftmaxHead._factors


def quarter_noise(source: NoiseSource, count: int) -> noise.Floats:
    return _normal(source, count) / 4


def no_noise(source: NoiseSource, count: int) -> noise.Floats:
    return np.zeros(count)


def no_clip(head: softmax_head.SoftmaxHead, rows: object, group: object, clip: float | None) -> object:
    return _factors(head, rows, group, None)  # type: ignore[arg-type]


def unclipped(optimizer: UnitOptimizer) -> None:
    optimizer.max_grad_norm, kept = 1e9, optimizer.max_grad_norm
    _clip_and_accumulate(optimizer)
    optimizer.max_grad_norm = kept


_clip_and_accumulate = UnitOptimizer.clip_and_accumulate


class ShuffledSampler(PoissonSampler):
    """Epochs: every unit exactly once in each round of 1/q batches, as a data loader deals them."""

    def draw(self) -> np.ndarray:
        rounds = round(1 / self.rate)
        left = getattr(self, "_left", [])
        if not left:
            left = np.array_split(np.random.default_rng().permutation(self.units), rounds)
        self._left = left[1:]
        return np.sort(left[0])


class SeededKeystream(noise.Keystream):
    """The same key in every run."""

    def _start(self) -> None:
        super()._start()
        self._random = np.random.default_rng(7)

    def uniform(self, count: int) -> noise.Floats:
        return self._random.random(count)


def test_right_guesses_bound_epsilon() -> None:
    """All of 100 guesses right: the chance e/(1+e) to the hundredth is 5 % at epsilon 3.49."""
    bound = audit.lower_bound(0.0, canaries=100, guesses=100, correct=100)
    chance = 0.05 ** (1 / 100)
    assert bound == pytest.approx(math.log(chance / (1 - chance)), abs=1e-3)


@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-3])
def test_the_bound_grows_with_right_guesses_and_shrinks_with_delta(delta: float) -> None:
    bounds = [
        audit.lower_bound(delta, canaries=500, guesses=100, correct=right) for right in range(50, 101, 10)
    ]
    assert bounds == sorted(bounds)
    assert bounds[0] == 0
    without = audit.lower_bound(0.0, canaries=500, guesses=100, correct=95)
    assert audit.lower_bound(delta, canaries=500, guesses=100, correct=95) <= without


def test_the_p_value_holds_for_randomised_response() -> None:
    """A mechanism that is exactly epsilon-private passes: at most 5 % of its audits claim more (400 of them)."""
    random = np.random.default_rng(5)
    claims = 0
    for _ in range(400):
        included = random.random(200) < 0.5
        answers = np.where(random.random(200) < 1 / (1 + math.exp(-1.0)), included, ~included)
        # Of equal scores the order must not follow the coins: jitter decides.
        found = audit.judge(answers + random.random(200) / 2, included, claimed=1.0, delta=0.0, share=1.0)
        claims += found.verdict == audit.VIOLATION
    assert claims <= 36  # 20 expected at most; 36 is 4 standard deviations above


def test_coins_are_fair() -> None:
    assert abs(int(audit.coins(100_000).sum()) - 50_000) < 1_000  # 6 standard deviations


@pytest.mark.parametrize("trainer", [head_audit, step_audit])
def test_an_honest_trainer_passes(trainer: Callable[[], audit.Audit]) -> None:
    found = trainer()
    assert found.verdict == audit.NOTHING_FOUND, found
    assert found.epsilon_lower_bound < EPSILON


def test_a_trainer_without_privacy_shows_everything() -> None:
    found = head_audit(epsilon=None)
    assert found.epsilon_lower_bound > EPSILON
    assert found.verdict == audit.NOTHING_FOUND  # it promised nothing


@pytest.mark.parametrize("broken", [quarter_noise, no_noise])
@pytest.mark.parametrize("trainer", [head_audit, step_audit])
def test_too_little_noise_is_caught(
    trainer: Callable[[], audit.Audit], broken: Callable[..., object]
) -> None:
    with replaced(NoiseSource, "normal", broken):
        assert trainer().verdict == audit.VIOLATION


def test_a_head_that_does_not_clip_is_caught() -> None:
    # At a smaller claim: without the clip, large gradients saturate the softmax and stop growing.
    with replaced(softmax_head.SoftmaxHead, "_factors", no_clip):
        assert head_audit(epsilon=1.0).verdict == audit.VIOLATION


def test_an_optimizer_that_does_not_clip_is_caught() -> None:
    with replaced(UnitOptimizer, "clip_and_accumulate", unclipped):
        assert step_audit().verdict == audit.VIOLATION


def test_shuffled_batches_are_found_by_the_sampler_test_and_not_here() -> None:
    """Who is in which batch does not show in a final model; how even the batches are does."""
    found = step_audit(sampler=ShuffledSampler)
    assert found.verdict == audit.NOTHING_FOUND  # if the audit learns to find this, say so here
    for sampler, is_broken in ((ShuffledSampler(300, 0.2), True), (PoissonSampler(300, 0.2), False)):
        counts = sum(np.bincount(sampler.draw(), minlength=300) for _ in range(400))
        assert (evenness(counts, draws=400, rate=0.2) < 1e-7) is is_broken


def test_a_reused_seed_is_found_by_the_repeat_test_and_not_here() -> None:
    """Noise of a known seed hides a canary from who does not know the seed; two sources that agree give it away."""
    with replaced(noise, "Keystream", SeededKeystream):
        found = head_audit()
        repeats = np.array_equal(NoiseSource().normal(100), NoiseSource().normal(100))
    assert found.verdict == audit.NOTHING_FOUND
    assert repeats
    assert not np.array_equal(NoiseSource().normal(100), NoiseSource().normal(100))


BREAKAGES: tuple[tuple[Callable[[], audit.Audit], object, str, Callable[..., object]], ...] = (
    (head_audit, NoiseSource, "normal", quarter_noise),
    (head_audit, NoiseSource, "normal", no_noise),
    (lambda: head_audit(epsilon=1.0), softmax_head.SoftmaxHead, "_factors", no_clip),
    (step_audit, NoiseSource, "normal", quarter_noise),
    (step_audit, NoiseSource, "normal", no_noise),
    (step_audit, UnitOptimizer, "clip_and_accumulate", unclipped),
)


@pytest.mark.slow
def test_many_runs(proof: Proof) -> None:
    """`make audit`: every honest run passes, every broken one is caught, over many runs of each."""
    started = time.monotonic()
    honest = [trainer() for _ in range(RUNS) for trainer in (head_audit, step_audit)]
    highest = max(found.epsilon_lower_bound for found in honest)
    assert all(found.verdict == audit.NOTHING_FOUND for found in honest)
    caught = 0
    for trainer, owner, name, broken in BREAKAGES:
        with replaced(owner, name, broken):
            caught += sum(trainer().verdict == audit.VIOLATION for _ in range(RUNS))
    total = RUNS * len(BREAKAGES)
    assert caught >= 0.95 * total  # the bound itself holds with 95 % confidence
    proof.found(
        "audit",
        f"{len(honest)} honest runs at epsilon {EPSILON:g}, {CANARIES:,} canaries each: no violation, highest "
        f"lower bound {highest:.2f}; {caught} of {total} runs of broken trainers (noise/4, no noise, no clip) caught",
        seconds=time.monotonic() - started,
    )
