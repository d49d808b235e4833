"""The RAM tier counts what it holds, not what the file had: a catalogue of names weighs more than its letters."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from modeling.core.recommend_scores import ItemModel
from modeling.serving.store import Reference, read_artifact
from tests.serving.made import Artifacts, Made


def held_and_counted(made: Made) -> tuple[int, int]:
    """Bytes that an artefact takes once it is read and its items can be looked up, and what the store says."""
    reference = Reference.parse(made.tenant, made.body)
    read_artifact(reference)  # imports are no part of it
    tracemalloc.start()
    try:
        artifact = read_artifact(reference)
        if "items" in artifact.config:
            model = ItemModel(artifact.tensors, artifact.config)
            assert model.index
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return held, artifact.size_bytes


@pytest.mark.parametrize("kind", ["items", "full"])
def test_it_counts_what_it_holds(tmp_path: Path, kind: str) -> None:
    artifacts = Artifacts(tmp_path)
    made = artifacts.items(count=20_000) if kind == "items" else artifacts.full()
    held, counted = held_and_counted(made)
    assert 0.85 <= counted / held <= 1.15
