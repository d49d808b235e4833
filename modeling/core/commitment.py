"""What a run commits to: a Merkle root for the units that train, one for those held out; no row is revealed."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Any

from modeling.core import merkle
from modeling.core.canonical import encode, exact
from modeling.core.types import Recipe, TrainingData

SIDES = ("train", "held_out")
Row = dict[str, Any]


def unit_rows(recipe: Recipe, data: TrainingData) -> list[list[Row]]:
    """The rows of each unit as the model sees them, by unit number; a unit whose rows all fell out has none."""
    found: list[list[Row]] = [[] for _ in data.held_out]
    if data.histories:
        for unit, items in zip(data.units, data.histories, strict=True):
            found[unit] = [{"item": data.catalogue[item][0]} for item in items]
        return found
    for row, unit in enumerate(data.units):
        found[unit].append(_row(recipe, data, row))
    return found


def _row(recipe: Recipe, data: TrainingData, row: int) -> Row:
    """One row with names in place of indices: what its owner would recognise."""
    found: Row = {}
    if data.texts:
        found["text"] = data.texts[row]
    if data.conversations:
        found["messages"] = [dict(turn) for turn in data.conversations[row]]
    if data.cells:
        found["cells"] = {name: _cell(cells[row]) for name, cells in data.cells.items()}
    if data.labels:
        found["label"] = recipe.labels[data.labels[row]]
    if data.label_sets:
        found["labels"] = sorted(recipe.labels[label] for label in data.label_sets[row])
    if data.targets:
        found["target"] = float(data.targets[row])
    if data.groups:
        found["groups"] = {name: int(groups[row]) for name, groups in data.groups.items()}
    return found


def _cell(value: Any) -> Any:
    """A raw cell as JSON: numpy's numbers as Python's."""
    return value.item() if hasattr(value, "item") else value


def row_bytes(row: Row) -> bytes:
    """The bytes of a row that its digest covers."""
    return encode(exact(row))


def salt(key: bytes, job: str, handle: bytes) -> bytes:
    """A unit's salt in one job: two jobs on the same people have nothing in common to compare."""
    return hmac.digest(key, b"salt|" + job.encode() + b"|" + handle, "sha256")


def commit(
    recipe: Recipe, data: TrainingData, handles: Sequence[bytes], *, key: bytes, job: str, rows: int
) -> dict[str, Any]:
    """The commitment as JSON: per side the root and the number of units; `rows` is the public number of rows.

    `handles[u]` names unit u and orders the leaves, so that the order of reading does not matter. Raises ValueError
    when they are not as many as the units.
    """
    trees = leaves_of(recipe, data, handles, key=key, job=job)
    sides = {side: {"root": merkle.root(trees[side]).hex(), "units": len(trees[side])} for side in SIDES}
    found: dict[str, Any] = {"scheme": merkle.SCHEME, "rows": rows, **sides}
    if data.catalogue:
        items = encode([list(pair) for pair in data.catalogue])
        found["catalogue"] = hmac.digest(key, b"catalogue|" + items, "sha256").hex()
    return found


def leaves_of(
    recipe: Recipe, data: TrainingData, handles: Sequence[bytes], *, key: bytes, job: str
) -> dict[str, list[bytes]]:
    """The leaves of both trees, by handle."""
    order = _order(data, handles)
    rows = unit_rows(recipe, data)
    return {
        side: [_leaf(rows[unit], salt(key, job, handles[unit])) for unit in order[side]] for side in SIDES
    }


def prove(
    recipe: Recipe, data: TrainingData, handles: Sequence[bytes], *, key: bytes, job: str, handle: bytes
) -> dict[str, Any]:
    """Proof that one unit's rows are under the root of its side; raises KeyError for a unit that took no part."""
    unit = {found: number for number, found in enumerate(handles)}[handle]
    side = SIDES[bool(data.held_out[unit])]
    index = _order(data, handles)[side].index(unit)
    leaves = leaves_of(recipe, data, handles, key=key, job=job)[side]
    return {
        "format": 1,
        "job": job,
        "side": side,
        "index": index,
        "size": len(leaves),
        "salt": salt(key, job, handle).hex(),
        "rows": exact(unit_rows(recipe, data)[unit]),
        "siblings": [sibling.hex() for sibling in merkle.path(leaves, index)],
    }


def root_of_proof(proof: dict[str, Any]) -> str:
    """The root, as hex, that a proof leads to; raises ValueError, KeyError or TypeError for a malformed one."""
    start = merkle.leaf(
        bytes.fromhex(proof["salt"]), merkle.rows_digest(row_bytes(row) for row in proof["rows"])
    )
    siblings = [bytes.fromhex(one) for one in proof["siblings"]]
    if any(len(one) != 32 for one in siblings):
        raise ValueError("a sibling has 32 bytes")
    return merkle.root_from(
        start, index=int(proof["index"]), size=int(proof["size"]), siblings=siblings
    ).hex()


def _leaf(rows: Sequence[Row], unit_salt: bytes) -> bytes:
    return merkle.leaf(unit_salt, merkle.rows_digest(row_bytes(row) for row in rows))


def _order(data: TrainingData, handles: Sequence[bytes]) -> dict[str, list[int]]:
    """Unit numbers of each side, by handle."""
    if len(handles) != len(data.held_out):
        raise ValueError(f"{len(handles)} handles for {len(data.held_out)} units")
    order = sorted(range(len(handles)), key=lambda unit: handles[unit])
    return {side: [unit for unit in order if SIDES[bool(data.held_out[unit])] == side] for side in SIDES}
