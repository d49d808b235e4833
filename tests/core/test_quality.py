"""The quality report's numbers: planted copies, leaks, gaps and overlaps are found, and a clean file has none."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from modeling.core.quality import Looking, Seen, measure
from modeling.core.quality_advice import advise
from modeling.core.quality_cells import telling
from modeling.core.quality_overlap import Marks, overlap
from modeling.core.quality_words import Sketches, sketch, words_of
from modeling.core.types import Feature

ROWS = 1_500
COLUMNS = ("person", "text", "label", "age", "ward")
WORDS = [f"{a}{b}" for a in ("mor", "tal", "vin", "kes", "rud", "pol", "fen", "gar") for b in range(150)]


def clean(count: int = ROWS, *, seed: int = 7, people: int = 750) -> list[dict[str, Any]]:
    """Rows in which nothing is wrong: texts of random words, labels in their words' endings, no cell empty."""
    chance = random.Random(seed)
    rows = []
    for number in range(count):
        label = ("cardiac clinic", "eye clinic", "skin clinic")[number % 3]
        text = " ".join(chance.choices(WORDS[400 * (number % 3) :][:400], k=chance.randint(20, 60)))
        cells = {"person": f"P{number % people}", "text": text, "label": label}
        rows.append(cells | {"age": str(chance.randint(20, 80)), "ward": chance.choice("ABCD")})
    return rows


def seen(rows: Sequence[dict[str, Any]]) -> Iterator[Seen]:
    """As the vault hands them out: the rows of one person side by side, every fifth person held out."""
    people = list(dict.fromkeys(row["person"] for row in rows))
    number = {person: at for at, person in enumerate(people)}
    ordered = sorted(enumerate(rows, start=2), key=lambda one: number[one[1]["person"]])
    for line, row in ordered:
        yield Seen(number[row["person"]], number[row["person"]] % 5 == 0, line, row)


def report(rows: Sequence[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """The report of labelled texts, with advice."""
    looking = Looking(
        **{"columns": COLUMNS, "texts": ("text",), "label": "label", "named": ("person",), "rows": len(rows)}
        | fields
    )
    *steps, found = measure(looking, seen(rows))
    assert steps == sorted(steps)
    used = {"text", "label", *looking.declared}
    return found | {"advice": {one.code for one in advise(found, used=used)}}


def test_a_clean_file_has_nothing() -> None:
    found = report(clean())
    assert (found["rows"], found["units"], found["copies"]["rows"], found["rules"]) == (ROWS, 750, 0, [])
    near = found["near"]
    assert (near["rows"], near["equal"], near["contradictions"]) == (0, 0, 0)
    assert near["held_out"]["equal"] == near["held_out"]["near"] == 0
    assert all(one["missing"] == one["placeholders"] == one["outside"] == 0 for one in found["columns"])
    assert (found["leak"]["share"], found["text"]["too_long"], found["text"]["empty"]) == (0, 0, 0)
    assert found["rows_per_unit"]["histogram"][1] == {"low": 2, "high": 2, "count": 750}
    assert [one["rows"] for one in found["classes"]["shown"]] == [500, 500, 500]
    assert sum(bar["count"] for bar in found["text"]["words"]["histogram"]) == ROWS
    assert found["advice"] == {"all_good", "unlocks_canaries"}


def changed(text: str, chance: random.Random, words: int) -> str:
    """The text with some words exchanged."""
    found = text.split()
    for at in chance.sample(range(len(found)), words):
        found[at] = f"other{chance.random()}"
    return " ".join(found)


def test_near_duplicates_are_found_and_nothing_else() -> None:
    """2 % of the rows are a former text with one word in forty exchanged; recall and precision by line pairs."""
    chance = random.Random(3)
    rows = clean(seed=11)
    planted = set()
    for number in range(0, ROWS, 50):
        original = " ".join(chance.choices(WORDS, k=40))
        rows[number]["text"], rows[number + 1]["text"] = original, changed(original, chance, 1)
        rows[number + 25]["text"] = changed(original, chance, 20)  # too far away to be a copy
        planted.add((number + 2, number + 3))
    found = {(first, second) for first, second, _ in report(rows)["near"]["pairs"]}
    assert found == planted  # recall 1, precision 1 at this rate
    assert "held_out_copies" not in report(clean(seed=11))["advice"]


def test_likeness_is_jaccards_of_three_word_runs() -> None:
    one, two = "a b c d e f g h", "a b c d e f g z"
    parts = Sketches.joined(
        [sketch([words_of(one), words_of(two)]), sketch([words_of("病人有咳嗽和发热"), []])]
    )
    assert parts.likeness(0, 1) == pytest.approx(5 / 7)
    assert words_of("病人, B12!") == ["病", "人", "b12"]
    assert parts.likeness(3, 3) == 0


def test_equal_rows_and_texts_with_another_label_are_found() -> None:
    rows = clean()
    for number in range(0, 300, 10):
        rows[number + 1] = dict(rows[number])
    for number in range(600, 660, 2):
        rows[number + 1]["text"] = rows[number]["text"]
    found = report(rows)
    assert found["copies"]["rows"] == 30
    assert sorted(map(tuple, found["copies"]["pairs"])) == [(n + 2, n + 3) for n in range(0, 300, 10)]
    assert (found["near"]["equal"], found["near"]["contradictions"]) == (60, 60)
    assert {"copies", "contradictions"} <= found["advice"]


def test_held_out_rows_that_training_has_seen_are_counted() -> None:
    chance = random.Random(5)
    rows = clean()
    for person in range(0, 100, 5):  # persons 0, 5, 10, … are held out, their neighbours train
        text = " ".join(chance.choices(WORDS, k=50))
        rows[person]["text"] = text
        rows[person + 1]["text"] = text if person < 50 else changed(text, chance, 1)
    held_out = report(rows)["near"]["held_out"]
    assert held_out == {"rows": 300, "equal": 10, "near": 10}
    assert "held_out_copies" in report(rows)["advice"]


def test_a_label_that_stands_in_its_text_is_found() -> None:
    rows = clean()
    for row in rows:
        if row["label"] == "eye clinic":
            row["text"] += " Clinic of the EYE"
    found = report(rows)
    classes = {one["label"]: (one["own"], one["other"]) for one in found["leak"]["classes"]}
    assert classes == {"cardiac clinic": (0, 0), "eye clinic": (1, 0), "skin clinic": (0, 0)}
    assert "label_in_text" in found["advice"]
    for row in rows:  # the control: words that every text has give nothing away
        row["text"] += " eye clinic skin cardiac"
    assert not report(rows)["advice"] & {"label_in_text", "class_in_text"}
    assert telling("yes") == telling("3") == frozenset()


def test_a_column_that_gives_the_label_away_is_named() -> None:
    rows = clean()
    codes = {"cardiac clinic": "17", "eye clinic": "23", "skin clinic": "42"}
    for row in rows:
        row["ward"] = codes[row["label"]]
    assert [(one["column"], one["share"], one["is_same"]) for one in report(rows)["rules"]] == [
        ("ward", 1.0, False)
    ]
    for row in rows:
        row["ward"] = row["label"].upper()
    assert report(rows)["rules"][0]["is_same"]
    for row in rows[::20]:  # 5 % are other ones: no rule any more
        row["ward"] = "A"
    assert report(rows)["rules"] == []


def test_missing_and_outlying_cells_are_counted_by_column() -> None:
    rows = clean()
    for number, row in enumerate(rows):
        row["age"] = (
            "" if number % 10 == 0 else "n/a" if number % 10 == 1 else "200" if number % 10 == 2 else "50"
        )
        row["ward"] = "Z" if number % 2 else row["ward"]
    declared = {
        "age": Feature("age", "number", low=0, high=120),
        "ward": Feature("ward", "category", categories=tuple("ABCD")),
    }
    found = report(rows, declared=declared)
    by_name = {one["name"]: (one["missing"], one["placeholders"], one["outside"]) for one in found["columns"]}
    assert (by_name["age"], by_name["ward"]) == ((150, 150, 150), (0, 0, 750))
    assert {"outside", "placeholders"} <= found["advice"]
    assert "outside" not in report(clean(), declared=declared)["advice"]


def test_long_texts_are_counted_in_the_encoders_tokens() -> None:
    rows = clean(30)
    rows[3]["text"] = "word " * 300
    rows[4]["text"] = "x" * 400  # one word: by its tokens, as the counter says
    rows[5]["text"] = ""
    found = report(rows, tokens=lambda texts: [len(text) for text in texts])
    long = sum(len(row["text"]) > 256 for row in rows)
    assert (found["text"]["too_long"], found["text"]["empty"]) == (long, 1)
    assert report(rows)["text"]["too_long"] == 1  # without a counter, by words


def test_people_and_rows_that_two_files_share_are_counted() -> None:
    training, validation = clean(), clean(600, seed=99, people=300)
    for at, row in enumerate(validation):
        row["person"] = f"V{at % 300}"
    assert shared(training, validation) == (0, 0, 0)  # the control
    for number in range(0, 40, 2):
        validation[number]["person"] = training[number]["person"]
    for number in range(100, 130):
        validation[number] = dict(training[number])
    assert shared(training, validation) == (50, 30, 30)


def test_files_without_a_column_in_common_share_no_rows() -> None:
    marks = [Marks((), (), unnamed=b"nobody") for _ in range(2)]
    for one, name in zip(marks, (b"a" * 16, b"b" * 16), strict=True):
        one.add(name, {})
        one.add(name, {})
    found = overlap(*marks)
    assert (found["rows"], found["shared_rows"], found["shared_people"]) == (2, 0, 0)


def test_rows_without_a_person_are_told() -> None:
    rows = clean()
    for row in rows[:3]:
        row["person"] = ""
    found = report(rows)
    codes = {one.code: one.values for one in advise(found, used=("text",), unit="person")}
    assert codes["unnamed"] == {"column": "person", "n": 3}
    assert "unnamed" not in {one.code for one in advise(report(clean()), used=("text",), unit="person")}


def shared(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> tuple[int, int, int]:
    """People, rows and texts of the second that are in the first."""
    marks = []
    for rows in (first, second):
        one = Marks(COLUMNS, ("text",), unnamed=b"nobody")
        for row in rows:
            one.add(row["person"].encode().rjust(16, b"0")[::-1], row)
        marks.append(one)
    found = overlap(*marks)
    return found["shared_people"], found["shared_rows"], found["shared_texts"]


def test_conversations_interactions_and_numbers_are_measured_too() -> None:
    turns = [{"role": "user", "content": "word " * 10}, {"role": "assistant", "content": "yes " * 5}]
    *_, talks = measure(
        Looking(columns=("messages",), texts=("messages",), rows=1), [Seen(0, False, 1, {"messages": turns})]
    )
    assert talks["text"]["words"]["largest"] == 15
    rows = [Seen(n // 4, False, n, {"user": str(n // 4), "item": f"i{n % 3}"}) for n in range(400)]
    *_, bought = measure(Looking(columns=("user", "item"), item="item", named=("user",), rows=400), rows)
    assert (bought["classes"]["of"], bought["classes"]["count"], bought["near"]) == ("items", 3, None)
    price = {"price": Feature("price", "number", low=0, high=100)}
    priced = [Seen(n, False, n, {"price": str(n)}) for n in range(150)]
    *_, numbers = measure(
        Looking(columns=("price",), label="price", is_number=True, declared=price, rows=150), priced
    )
    assert (numbers["target"]["outside"], numbers["classes"], numbers["rules"]) == (49, None, [])
