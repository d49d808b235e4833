"""Models on columns: rows of named cells to labels or numbers, in numpy on a side thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modeling.core.table_features import NUMBER, number_of
from modeling.core.table_predictor import TableModel
from modeling.core.types import CoreError
from modeling.serving.asks import Ask
from modeling.serving.store import Artifact, ArtifactStore
from modeling.serving.turns import Turns
from modeling.serving.wire import EngineRefusal

MAX_ROWS = 2048
DEFAULT_TOP_K = 5
_NAMED = 12  # columns that a refusal lists


class TableRunner:
    """Answers requests one after another; rows live in the request only."""

    def __init__(self, store: ArtifactStore, turns: Turns) -> None:
        self._store = store
        self._turns = turns

    async def classify(self, ask: Ask) -> dict[str, Any]:
        """`rows` of cells by column, `top_k` -> results [[label, probability]…] per row, best first, or `values`."""
        reference = ask.reference
        if reference is None:
            raise EngineRefusal("wrong_task", "Train a model on your columns first.")
        artifact = await self._store.get(reference)
        return await self._turns.run(ask.tenant, _answer, artifact, ask)


def _answer(artifact: Artifact, ask: Ask) -> dict[str, Any]:
    model = _model(artifact)
    rows = ask.body.get("rows")
    if not isinstance(rows, list) or not 0 < len(rows) <= MAX_ROWS:
        raise EngineRefusal("bad_cell", f"inputs: send 1 to {MAX_ROWS} objects with this model's columns.")
    cells = _cells(model, rows)
    if model.is_regression:
        return {"values": model.values(cells, len(rows)), "tokens": 0}
    top_k = min(ask.integer("top_k", DEFAULT_TOP_K), len(model.labels))
    best = []
    for row in model.probabilities(cells, len(rows)):
        order = row.argsort()[::-1][:top_k]
        best.append([[model.labels[index], float(row[index])] for index in order])
    return {"results": best, "tokens": 0, "abstain_below": artifact.config.get("abstain_below")}


def _model(artifact: Artifact) -> TableModel:
    """Checked and built once per artefact in RAM."""
    known = artifact.extras.get("table")
    if isinstance(known, TableModel):
        return known
    try:
        model = TableModel(artifact.tensors, artifact.config)
    except (CoreError, KeyError, ValueError) as error:
        raise EngineRefusal("bad_artifact", "The model's parts do not fit its columns.") from error
    artifact.extras["table"] = model
    return model


def _cells(model: TableModel, rows: Sequence[Any]) -> dict[str, list[Any]]:
    """Cells by column; a missing cell is None. Raises EngineRefusal naming the column of a cell of a wrong type."""
    kinds = {feature.name: feature.kind for feature in model.features.features}
    for at, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise EngineRefusal("bad_cell", f"inputs[{at}]: send an object with this model's columns.")
        if not row.keys() <= kinds.keys():
            names = ", ".join(list(kinds)[:_NAMED]) + (", …" if len(kinds) > _NAMED else "")
            raise EngineRefusal(
                "bad_cell", f"inputs[{at}] has a column that this model does not know. It has {names}."
            )
        for name, cell in row.items():
            _check(f"inputs[{at}].{name}", cell, is_number=kinds[name] == NUMBER)
    return {name: [row.get(name) for row in rows] for name in kinds}


def _check(param: str, cell: Any, *, is_number: bool) -> None:
    """Refuse what is not a cell of its column's kind; null and "" are missing, an unknown category is allowed."""
    if cell is None or cell == "":
        return
    if isinstance(cell, list | dict):
        raise EngineRefusal("bad_cell", f"{param} must be one value, not a list or an object.")
    if is_number and (isinstance(cell, bool) or number_of(cell) is None):
        raise EngineRefusal("bad_cell", f"{param} must be a number.")
