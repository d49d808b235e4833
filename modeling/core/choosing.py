"""Which method "auto" gives a text classification job, by n, K, epsilon and device, and why, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from modeling.core import accounting
from modeling.core.types import Recipe, Shape

# mu · n from which adapters may pay where a GPU makes them quick. Measured once, on the clinic rows at epsilon 8
# (mu · n = 28,800; 1,370 a class): .898 with adapters, .894 with the head, for 3.4 times the CPU time. Below that
# nothing was measured to gain, and 30 % of mu² would go to layers that a few dozen noisy steps hardly move.
LORA_SIGNAL = 25_000.0
LORA_SIGNAL_PER_CLASS = 1_000.0
OPEN_LORA_UNITS = 2_000  # without privacy: fewer people overfit the adapters


@dataclass(frozen=True)
class Choice:
    """A method of heads.HEADS and the sentence that the plan's notes carry."""

    method: str
    reason: str


def choose_text(recipe: Recipe, shape: Shape, *, delta: float, device: str) -> Choice:
    """The method for a text classification recipe that leaves it open; touches no data.

    `full` is never chosen: it needs the memory of a GPU and has not been measured to beat adapters under privacy.
    """
    if recipe.multi_label:
        return Choice(
            "head",
            "Method: a private layer on the frozen encoder, which was measured for rows of several labels; adapters "
            "were not.",
        )
    if not device.startswith("cuda"):
        return Choice(
            "head",
            "Method: a private layer on the frozen encoder. On a machine without a GPU adapters cost three times the "
            "time and were measured to gain at most half a point.",
        )
    if recipe.epsilon is None:
        if shape.train_units < OPEN_LORA_UNITS:
            return Choice("head", "Method: a layer on the frozen encoder, as adapters overfit so few people.")
        return Choice("lora", "Method: adapters in the encoder, as there is a GPU and no noise to fear.")
    signal = accounting.gaussian_mu(recipe.epsilon, delta) * shape.train_units
    if signal < LORA_SIGNAL or signal < LORA_SIGNAL_PER_CLASS * shape.classes:
        return Choice(
            "head",
            f"Method: a private layer on the frozen encoder. {shape.train_units:,} people in {shape.classes} classes "
            f"at epsilon {recipe.epsilon:g} are too few for the noise of adapters.",
        )
    return Choice(
        "lora",
        f"Method: private adapters in the encoder. {shape.train_units:,} people at epsilon {recipe.epsilon:g} and a "
        "GPU leave room for them.",
    )
