"""Text colours of both themes meet WCAG AA (4.5:1) on every ground that they stand on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOKENS = (Path(__file__).resolve().parents[2] / "saas" / "static" / "css" / "tokens.css").read_text()
AA = 4.5
PAIRS = [
    *((ink, ground) for ink in ("ink", "muted") for ground in ("paper", "sunk", "raised", "hairline")),
    *(
        (ink, ground)
        for ink in ("accent", "privacy", "bad", "warn", "good")
        for ground in ("paper", "sunk", "raised")
    ),
    *((state, f"{state}-wash") for state in ("good", "warn", "bad", "privacy", "accent")),
    *(("ink", f"{state}-wash") for state in ("good", "warn", "bad", "privacy", "accent")),
    *(("muted", f"{state}-wash") for state in ("privacy", "accent")),
    ("on-accent", "accent"),
    ("on-accent", "accent-hover"),
    ("paper", "ink"),
]


def _theme(start: str) -> dict[str, str]:
    block = TOKENS[TOKENS.index(start) :]
    return dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6});", block[: block.index("}")]))


THEMES = {"light": _theme(":root {"), "dark": _theme(":root[data-theme"), "system": _theme(":root:not(")}


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", THEMES)
def test_text_can_be_read(theme: str) -> None:
    colours = THEMES[theme]
    weak = {
        f"{ink} on {ground}": round(contrast(colours[ink], colours[ground]), 2)
        for ink, ground in PAIRS
        if contrast(colours[ink], colours[ground]) < AA
    }
    assert weak == {}


def test_the_two_ways_to_be_dark_are_the_same() -> None:
    assert THEMES["dark"] == THEMES["system"]
    assert set(THEMES["dark"]) <= set(THEMES["light"])


def test_weak_contrast_is_found() -> None:
    assert contrast("#777777", "#888888") < 2 < 20 < contrast("#000000", "#ffffff")
