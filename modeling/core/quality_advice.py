"""What to mend for a better model, as codes with numbers: what a report says, weighed by simple rules."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

BAD, WARN, NOTE, GOOD = "bad", "warn", "note", "good"
FEWEST_PEOPLE, USUAL_PEOPLE, CANARY_PEOPLE = 50, 500, 1_000
SMALL_CLASS = 50
_ORDER = {BAD: 0, WARN: 1, NOTE: 2, GOOD: 3}


@dataclass(frozen=True)
class Advice:
    """One finding: a code for its sentence, how grave, and the numbers of the sentence."""

    code: str
    level: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)


def advise(
    report: Mapping[str, Any], *, used: Collection[str], unit: str = "", is_catalogue: bool = False
) -> list[Advice]:
    """Findings, the gravest first; `used` are the columns that a model reads, `unit` the one that names people.

    `all_good` when none is grave.
    """
    found = [
        *_overlap(report.get("overlap")),
        *_leaks(report),
        *_copies(report),
        *_cells(report, used),
        *_unnamed(report, unit),
        *_classes(report),
        *_lengths(report),
        *([] if is_catalogue else _people(report)),
    ]
    if not any(one.level in (BAD, WARN) for one in found):
        found.append(Advice("all_good", GOOD))
    return sorted(found, key=lambda one: _ORDER[one.level])


def _overlap(overlap: Mapping[str, Any] | None) -> Iterator[Advice]:
    if overlap is None:
        return
    if overlap["shared_people"]:
        yield Advice("shared_people", BAD, {"n": overlap["shared_people"], "of": overlap["people"]})
    rows = max(overlap["shared_rows"], overlap["shared_texts"])
    if rows:
        yield Advice("shared_rows", BAD, {"n": rows, "of": overlap["rows"]})
    if not rows and not overlap["shared_people"]:
        yield Advice("nothing_shared", GOOD)


def _leaks(report: Mapping[str, Any]) -> Iterator[Advice]:
    for rule in report["rules"]:
        code = "column_is_label" if rule["is_same"] else "column_decides"
        yield Advice(code, BAD, {"column": rule["column"], "share": rule["share"]})
    leak = report["leak"]
    if leak and leak["share"] >= max(0.2, 0.1 + 3 * leak["by_chance"]):
        yield Advice("label_in_text", WARN, {"share": leak["share"], "chance": leak["by_chance"]})
        return
    for one in leak["classes"] if leak else ():
        if one["rows"] >= SMALL_CLASS and one["own"] >= max(0.5, 0.1 + 3 * one["other"]):
            yield Advice("class_in_text", WARN, {"label": one["label"], "share": one["own"]})


def _copies(report: Mapping[str, Any]) -> Iterator[Advice]:
    near, rows = report["near"], max(1, report["rows"])
    if near:
        held_out = near["held_out"]
        met = held_out["equal"] + held_out["near"]
        if met > 0.01 * max(1, held_out["rows"]):
            yield Advice("held_out_copies", WARN, {"share": met / held_out["rows"]})
        if near["contradictions"] > 0.005 * rows:
            yield Advice("contradictions", WARN, {"n": near["contradictions"]})
        if near["rows"] > 0.05 * rows:
            yield Advice("near_copies", NOTE, {"n": near["rows"], "share": near["share"]})
    if report["copies"]["rows"] > 0.01 * rows:
        yield Advice("copies", WARN, {"n": report["copies"]["rows"], "share": report["copies"]["share"]})


def _cells(report: Mapping[str, Any], used: Collection[str]) -> Iterator[Advice]:
    rows = max(1, report["rows"])
    for one in report["columns"]:
        if one["name"] not in used:
            continue
        if one["missing"] > 0.2 * rows:
            yield Advice("missing", WARN, {"column": one["name"], "share": one["missing"] / rows})
        if one["placeholders"] > 0.01 * rows:
            yield Advice("placeholders", NOTE, {"column": one["name"], "n": one["placeholders"]})
        if one["outside"] > 0.01 * rows:
            yield Advice("outside", WARN, {"column": one["name"], "share": one["outside"] / rows})


def _unnamed(report: Mapping[str, Any], unit: str) -> Iterator[Advice]:
    for one in report["columns"]:
        if unit and one["name"] == unit and one["missing"]:
            yield Advice("unnamed", WARN, {"column": unit, "n": one["missing"]})


def _classes(report: Mapping[str, Any]) -> Iterator[Advice]:
    classes = report["classes"]
    if not classes or classes["of"] != "labels":
        return
    if classes["count"] < 2:
        yield Advice("one_class", BAD)
        return
    if classes["smallest"] < SMALL_CLASS:
        small = sum(one["rows"] < SMALL_CLASS for one in classes["shown"])
        yield Advice("small_classes", WARN, {"n": max(1, small), "rows": SMALL_CLASS})
    if classes["largest"] > 0.9 * classes["rows"]:
        yield Advice("lopsided", WARN, {"share": classes["largest"] / classes["rows"]})


def _lengths(report: Mapping[str, Any]) -> Iterator[Advice]:
    text, rows = report["text"], max(1, report["rows"])
    if text and text["empty"] > 0.001 * rows:
        yield Advice("empty_texts", WARN, {"n": text["empty"]})
    if text and text["too_long"] > 0.05 * rows:
        yield Advice("too_long", WARN, {"share": text["too_long"] / rows, "tokens": text["encoder_tokens"]})


def _people(report: Mapping[str, Any]) -> Iterator[Advice]:
    units = report["units"]
    if units < FEWEST_PEOPLE:
        yield Advice("too_few_people", BAD, {"n": units, "needed": FEWEST_PEOPLE})
    elif units < USUAL_PEOPLE:
        yield Advice("few_people", WARN, {"n": units, "needed": USUAL_PEOPLE})
    elif units < CANARY_PEOPLE:
        yield Advice("unlocks_canaries", NOTE, {"n": units, "needed": CANARY_PEOPLE})
    largest = report["rows_per_unit"]["largest"]
    if units >= FEWEST_PEOPLE and largest > max(20, 0.05 * report["rows"]):
        yield Advice("one_has_many", NOTE, {"n": int(largest), "share": largest / max(1, report["rows"])})
