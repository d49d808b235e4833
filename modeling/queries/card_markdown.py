"""The model card as Markdown: every section of the JSON card, for people and repositories; English, like the card."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

Card = dict[str, Any]


def markdown(card: Card) -> str:
    """The whole card; numbers as the JSON has them, rounded for reading."""
    sections = (
        _head, _privacy, _lineage, _data, _quality, _calibration, _fairness, _sweep, _audit, _training, _limits,
        _assessment, _artefact,
    )  # fmt: skip
    return "\n".join(line for section in sections for line in section(card)) + "\n"


def _head(card: Card) -> Iterator[str]:
    base = card["base"]
    yield from (f"# {card['model']}", "")
    if card["privacy"]["mode"] == "off":
        reason = _text(card["privacy"]["reason"])
        yield from (
            "> **PRIVACY OFF.** " + card["privacy"].get("warning", "Trained without privacy."),
            f"> Reason given: {reason}", "",
        )  # fmt: skip
    yield from _facts(
        ("Task", card["task"]),
        ("Method", card["method"]),
        ("Base model", f"{base['name']} ({base['revision']})" if base["revision"] else base["name"]),
        ("Licence of the base model", base["licence"]),
        ("Run", card["job"]),
    )


def _privacy(card: Card) -> Iterator[str]:
    privacy = card["privacy"]
    yield from ("## Privacy", "")
    if privacy["mode"] == "off":
        yield from ("None. No bound holds for this model.", "")
        return
    yield from _facts(
        ("Epsilon, record left out", _epsilon(privacy["epsilon"])),
        ("Epsilon, record replaced", _epsilon(privacy["epsilon_replace_one"])),
        ("Delta", _number(privacy["delta"])),
        ("Unit", f"{privacy['unit']} ({privacy['unit_means']})"),
        ("Adjacency", privacy["adjacency"]),
        ("Counted by", privacy["accountant"]),
    )
    yield from (f"- {_text(sentence)}" for sentence in privacy.get("plain_words", ()))
    if privacy.get("plain_words"):
        yield ""
    yield from _table(
        ("Mechanism", "People", "Sigma", "Clip", "Rate", "Times"),
        [
            (one["name"], one["partition"], _number(one["sigma"]), _number(one["clip"]),
             _number(one["sampling_rate"]), one["count"])
            for one in privacy["mechanisms"]
        ],
    )  # fmt: skip


def _lineage(card: Card) -> Iterator[str]:
    lineage = card.get("since", {}).get("lineage") or card["privacy"]["lineage"]
    yield from ("## What these people have spent over all runs", "")
    if lineage["no_bound"]:
        yield from ("No bound: a run without privacy used these people.", "")
        return
    yield from _facts(
        ("Epsilon used (Renyi filter, zero-out)", _epsilon(lineage["epsilon_used"])),
        ("Lifetime budget", _number(lineage["epsilon_lifetime"])),
        ("Delta", _number(lineage["delta"])),
        ("Runs", lineage.get("runs", "")),
    )
    changes = lineage.get("budget_changes", [])
    if changes:
        yield from ("The lifetime budget was changed by an owner:", "")
        yield from (
            f"- {one['at'][:10]}: from {_number(one['from'])} to {_number(one['to'])}: {_text(one['reason'])}"
            for one in changes
        )
        yield ""


def _data(card: Card) -> Iterator[str]:
    data = card["data"]
    yield from ("## Data", "")
    commitment = data.get("commitment") or {}
    yield from _facts(
        ("Dataset", f"{data['dataset']}, version {data['version']}"),
        ("Rows", data["rows"]),
        ("Units that train", data["training_units"]),
        ("Units held out", data["held_out_units"]),
        ("Merkle root of the units that train", commitment.get("train", {}).get("root", "")),
        ("Public by declaration", ", ".join(data["declared_public"])),
        ("Labels", ", ".join(data["labels"])),
        ("Columns", ", ".join(data.get("features", []))),
    )


def _quality(card: Card) -> Iterator[str]:
    yield from ("## Quality", "")
    metrics = {name: value for name, value in card["metrics"].items() if not name.endswith("noise_error")}
    if not metrics:
        yield from ("Nothing was released.", "")
        return
    intervals = card.get("intervals", {})
    yield from _table(
        ("Number", "Value", "95 % interval", "Error of the noise"),
        [
            (
                name, _number(value),
                f"{_number(intervals[name]['low'])} to {_number(intervals[name]['high'])}" if name in intervals else "",
                _number(intervals[name]["noise_error"]) if name in intervals else "",
            )
            for name, value in metrics.items()
        ],
    )  # fmt: skip


def _calibration(card: Card) -> Iterator[str]:
    found = card.get("report", {}).get("calibration")
    if not found:
        return
    yield from ("## Calibration", "")
    yield from _facts(
        ("Temperature", _number(found["temperature"])),
        ("Abstains below", _number(found.get("abstain_below"))),
        ("Share answered then", _number(found.get("answered"))),
        ("Accuracy of those", _number(found.get("accuracy_answered"))),
        ("Error of the noise", _number(found.get("noise_error"))),
    )
    yield from _table(
        ("Probability", "People", "Right"),
        [
            (
                f"{_number(one['low'])} to {_number(one['high'])}",
                _number(one["people"]),
                _number(one["correct"]),
            )
            for one in found.get("bins", [])
        ],
    )


def _fairness(card: Card) -> Iterator[str]:
    parts = card.get("report", {}).get("fairness", [])
    if not parts:
        return
    yield from ("## Fairness", "")
    for part in parts:
        yield from (f"### {_text(part['attribute'])} (largest gap {_number(part['gap'])})", "")
        yield from _table(
            ("Group", "People", "Accuracy", "Share positive", "Error of the noise", ""),
            [
                (one["group"], _number(one["people"]), _number(one["accuracy"]), _number(one.get("positive_rate")),
                 _number(one["noise_error"]), "small: mostly noise" if one["is_small"] else "")
                for one in part["groups"]
            ],
        )  # fmt: skip


def _sweep(card: Card) -> Iterator[str]:
    found = card.get("report", {}).get("sweep")
    if not found:
        return
    yield from (
        "## Sweep", "",
        (f"The best of a random number of runs ({_number(found['expected_runs'])} expected, {found['distribution']}). "
        "The epsilon above is that of the whole procedure."), "",
    )  # fmt: skip
    yield from _facts(*((name, _number(value)) for name, value in found.get("chosen", {}).items()))


def _audit(card: Card) -> Iterator[str]:
    found = card.get("report", {}).get("audit")
    if not found:
        return
    yield from ("## Audit", "")
    yield from _facts(
        ("Canaries", _number(found["canaries"])),
        ("Guesses", f"{_number(found['correct'])} of {_number(found['guesses'])} right"),
        ("Lower bound on epsilon", _number(found["epsilon_lower_bound"])),
        ("Confidence", _number(found["confidence"])),
        ("Verdict", found["verdict"]),
    )


def _training(card: Card) -> Iterator[str]:
    training = card["training"]
    yield from ("## Training", "")
    yield from _facts(
        ("Steps", f"{training['steps']} of {training['steps_planned']} planned"),
        ("Device", training.get("device", "")),
        ("Seconds on the device", _number(training["seconds"])),
        ("Processor seconds", _number(training.get("cpu_seconds"))),
    )
    yield from (f"- {_text(note)}" for note in card["notes"])
    if card["notes"]:
        yield ""


def _limits(card: Card) -> Iterator[str]:
    yield from ("## Limits", "", *(f"- {_text(one)}" for one in card["limits"]), "")


def _assessment(card: Card) -> Iterator[str]:
    rows = card.get("assessment")
    if not rows:
        return
    yield from ("## Self-assessment after NIST SP 800-226", "")
    yield from _table(
        ("Layer", "Question", "Answer", "Evidence"),
        [
            (one["layer"], one["question"], one["value"] or f"**Gap:** {one['gap']}", one["evidence"] or "")
            for one in rows
        ],
    )


def _artefact(card: Card) -> Iterator[str]:
    code = ", ".join(f"{name} {version}" for name, version in card["code"].items())
    yield from ("## Artefact and code", "")
    yield from _facts(("SHA-256", card["artefact"]["sha256"]), ("Code", code))


def _facts(*rows: tuple[str, Any]) -> Iterator[str]:
    shown = [f"- {name}: {_text(value)}" for name, value in rows if value not in ("", None)]
    yield from shown
    if shown:
        yield ""


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    if not rows:
        return
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(_text(value) for value in row)} |" for row in rows)
    yield ""


# No markup, cell, link or picture.
_INERT = str.maketrans({"&": "&amp;", "<": "&lt;", **{mark: f"\\{mark}" for mark in "\\|[]`"}})


def _text(value: Any) -> str:
    """Text that cannot leave its cell or its line, and that a reader's program shows and does not follow."""
    return " ".join(str(value).translate(_INERT).split())


def _number(value: Any) -> str:
    """Four significant digits; nothing for what is not there."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _epsilon(value: float) -> str:
    """Rounded up to a thousandth, so that no card says less than was spent."""
    return f"{math.ceil(round(value * 1000, 6)) / 1000:g}"
