"""What "auto" picks for a text job and says, and the quality that its quote expects."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modeling.core import accounting, choosing, expectations, planning
from modeling.core.types import CannotTrain, Recipe, Shape

CLINIC = Shape(17_285, 4_322, 21_607, classes=21)


def _recipe(classes: int = 21, **changes: object) -> Recipe:
    labels = tuple(f"class {number}" for number in range(classes))
    return replace(Recipe("classification", "minilm-l6", labels=labels), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "shape", "device", "method", "words"),
    [
        ({}, CLINIC, "cpu", "head", "without a GPU"),
        ({}, CLINIC, "cuda", "lora", "a GPU"),
        ({}, CLINIC, "cuda:1", "lora", "a GPU"),
        ({"epsilon": 1.0}, CLINIC, "cuda", "head", "too few"),
        ({}, Shape(2_000, 500, 2_500, classes=21), "cuda", "head", "too few"),
        ({}, replace(CLINIC, classes=100), "cuda", "head", "100 classes"),
        ({"multi_label": True}, CLINIC, "cuda", "head", "several labels"),
        ({"epsilon": None}, CLINIC, "cuda", "lora", "no noise"),
        ({"epsilon": None}, Shape(900, 200, 1_100, classes=21), "cuda", "head", "overfit"),
    ],
)
def test_the_rule(changes: dict[str, object], shape: Shape, device: str, method: str, words: str) -> None:
    found = choosing.choose_text(
        _recipe(**changes), shape, delta=accounting.delta_for(shape.train_units), device=device
    )
    assert found.method == method
    assert words in found.reason


def test_the_plan_says_which_method_and_why() -> None:
    plan = planning.plan(_recipe(), CLINIC)
    assert plan.method == "head"
    assert any(note.startswith("Method:") for note in plan.notes)
    asked = planning.plan(_recipe(method="head"), CLINIC)
    assert not any(note.startswith("Method:") for note in asked.notes)


def test_bands_narrow_and_rise_with_signal() -> None:
    found = [expectations.expected_text(rho, 21, 1_000) for rho in (10, 30, 100, 300, 1_000, 3_000)]
    assert [one.name for one in found] == ["poor", "draft", "fair", "good", *["near non-private"] * 2]
    lows, highs = [one.low for one in found], [one.high for one in found]
    assert lows == sorted(lows)
    assert highs == sorted(highs)
    assert all(0.3 < low < high < 1.05 for low, high in zip(lows, highs, strict=True))
    widths = [high - low for low, high in zip(lows, highs, strict=True)]
    assert widths == sorted(widths, reverse=True)


def test_several_labels_expect_more_loss() -> None:
    one, several = (
        planning.plan(_recipe(epsilon=3.0, multi_label=is_several), CLINIC).settings
        for is_several in (False, True)
    )
    assert several["expected_low"] < one["expected_low"]
    assert several["expected_high"] < one["expected_high"]


def test_too_little_signal_is_refused_with_what_would_be_enough() -> None:
    assert expectations.expected_text(9.9, 21, 1_000).name == "too small"
    with pytest.raises(CannotTrain) as refusal:
        planning.plan(_recipe(epsilon=1.0), Shape(700, 170, 870, classes=21))
    assert refusal.value.code == "too_few_units"
    assert "Bring about 7" in refusal.value.message  # mu is about .29 at this delta: rho 9.6


def test_two_classes_with_little_signal_are_told_about_the_larger() -> None:
    few = planning.plan(_recipe(2, epsilon=3.0), Shape(300, 75, 375, classes=2))
    assert any("always guessing the larger" in note for note in few.notes)
    many = planning.plan(_recipe(2, epsilon=3.0), Shape(900, 225, 1_125, classes=2))
    assert not any("always guessing the larger" in note for note in many.notes)
