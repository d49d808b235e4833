"""The map from cells to features knows the declaration alone: no row changes another row's features."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from modeling.core.table_features import (
    MOST_COLUMNS,
    TableFeatures,
    category_of,
    check_features,
    dump_features,
    load_features,
    number_of,
)
from modeling.core.types import CannotTrain, Feature
from tests.core.tiny_table import FEATURES, make_table

MAP = TableFeatures(FEATURES)


def test_it_works() -> None:
    x = MAP({"age": ["41", None], "home": ["owns", "tent"], "amount": [2.5, math.nan]}, 2)
    assert x.shape == (2, MAP.width) == (2, 13 + 3 + 13)
    assert np.allclose(np.linalg.norm(x, axis=1), 1)
    assert np.count_nonzero(x[1]) == 3  # nothing known: one indicator a column


def test_one_persons_row_changes_nobody_elses_features() -> None:
    data = make_table(200)
    before = MAP(data.cells, 200)
    changed = {name: list(column) for name, column in data.cells.items()}
    changed["age"][7], changed["home"][7], changed["amount"][7] = 1e9, "castle", -1e300
    after = MAP(changed, 200)
    others = np.arange(200) != 7
    assert np.array_equal(before[others], after[others])
    assert not np.array_equal(before[7], after[7])  # the control
    alone = MAP({name: column[7:8] for name, column in changed.items()}, 1)
    assert np.array_equal(alone[0], after[7])


def test_numbers_outside_their_bounds_are_put_on_them() -> None:
    low, high, below, above = MAP({"age": [0, 100, -5, 1e308]}, 4)
    assert np.array_equal(low, below)
    assert np.array_equal(high, above)
    assert not np.array_equal(low, high)


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("3,5", 3.5), (" 7 ", 7.0), ("1e3", 1000.0), (True, 1.0), ("", None), ("x", None), ("nan", None),
        ("inf", None), (None, None), (10**400, None), ([1], None),
    ],
)  # fmt: skip
def test_cells_as_numbers(cell: Any, number: float | None) -> None:
    assert number_of(cell) == number


def test_cells_as_categories_read_alike_in_every_format() -> None:
    assert [category_of(cell) for cell in (True, 3.0, 3, " a ", None, "")] == ["true", "3", "3", "a", "", ""]


def test_a_declaration_survives_json() -> None:
    assert load_features(json.loads(json.dumps(dump_features(FEATURES)))) == FEATURES


@pytest.mark.parametrize(
    "broken",
    [
        (),
        (Feature("a", "number", low=1, high=1),),
        (Feature("a", "number", low=0, high=5e-324),),  # its half is 0
        (Feature("a", "number", low=0, high=math.inf),),
        (Feature("a", "category"),),
        (Feature("a", "category", categories=("x", "x")),),
        (FEATURES[0], FEATURES[0]),
        (Feature("a", "category", categories=tuple(map(str, range(MOST_COLUMNS)))),),
    ],
)
def test_a_broken_declaration_is_refused(broken: tuple[Feature, ...]) -> None:
    with pytest.raises(CannotTrain):
        check_features(broken)


def test_the_widest_bounds_do_not_overflow() -> None:
    wide = TableFeatures([Feature("a", "number", low=-1.7e308, high=1.7e308)])
    assert np.isfinite(wide({"a": [0.0, 1.7e308, "-1e400"]}, 3)).all()
