"""The RAM tier counts what a version really holds, its runner's copies too, and lets the oldest go."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from modeling.serving.bert import Bert
from modeling.serving.heads import Heads
from modeling.serving.store import ArtifactStore, Reference
from tests.core.tiny_text import make_base
from tests.serving.made import Artifacts, Made


def reference(made: Made) -> Reference:
    return Reference.parse(made.tenant, made.body)


@pytest.mark.asyncio
async def test_it_works(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as side:
        store = ArtifactStore(side)
        artifact = await store.get(reference(Artifacts(tmp_path).items(count=10)))
        assert store.size_bytes == artifact.size_bytes > 0
        store.grow(artifact, 1000)
        assert store.size_bytes == artifact.size_bytes
        assert store.purge("acme", None) == 1
        assert store.size_bytes == 0
        store.grow(artifact, 1000)  # it is no longer held
        assert store.size_bytes == 0


@pytest.mark.asyncio
async def test_growth_counts_against_the_budget(tmp_path: Path) -> None:
    made = Artifacts(tmp_path)
    with ThreadPoolExecutor(1) as side:
        store = ArtifactStore(side, max_bytes=20_000)
        first, second = made.items(count=10), made.items(count=10)
        await store.get(reference(first))
        kept = await store.get(reference(second))
        loads = store.loads
        store.grow(kept, 18_000)
        assert store.size_bytes < 20_000 + kept.size_bytes - 18_000
        assert await store.get(reference(second)) is kept
        assert store.loads == loads
        await store.get(reference(first))
        assert store.loads == loads + 1


@pytest.mark.asyncio
async def test_a_fine_tunes_own_copies_are_counted(tmp_path: Path) -> None:
    model = Bert(make_base(tmp_path / "models"))
    width = model.width
    tensors = {
        "head.weight": np.zeros((2, width), np.float32),
        "head.bias": np.zeros(2, np.float32),
        "full.encoder.layer.0.attention.self.key.weight": np.ones((width, width), np.float32),
    }
    config = {"task": "classification", "method": "full", "labels": ["a", "b"]}
    with ThreadPoolExecutor(1) as side:
        store = ArtifactStore(side)
        made = reference(Artifacts(tmp_path).seal(tensors, config, tenant="acme"))
        plain = (await store.get(made)).size_bytes
        async with Heads(model, store).pinned(made):
            fused, head = 2 * 3 * width * width * 4, (2 * width + 2) * 4
            assert store.size_bytes == plain + fused + head
