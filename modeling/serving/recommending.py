"""Recommendations: exact scores over a version's own catalogue, in numpy on one side thread."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from typing import Any

from modeling.core.recommend_scores import SIMILAR, ItemModel, recommend_scores
from modeling.core.types import CoreError
from modeling.serving.asks import Ask
from modeling.serving.store import Artifact, ArtifactStore
from modeling.serving.wire import EngineRefusal

MAX_K = 1000


class RecommendRunner:
    """Scores requests one after another; the history lives in the request only."""

    def __init__(self, store: ArtifactStore, side: Executor) -> None:
        self._store = store
        self._side = side

    async def recommend(self, ask: Ask) -> dict[str, Any]:
        """`history`, `similar_to`, `exclude`, `k` -> items [[id, score]…], best first, and their basis."""
        reference = ask.reference
        if reference is None:
            raise EngineRefusal("wrong_task", "The base model has no items: train a recommender first.")
        artifact = await self._store.get(reference)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._side, _recommend, artifact, ask)


def _recommend(artifact: Artifact, ask: Ask) -> dict[str, Any]:
    model = artifact.extras.get("items")
    if model is None:
        if artifact.config.get("task") != "recommendation":
            raise EngineRefusal("wrong_task", "This model is not a recommender.")
        model = artifact.extras["items"] = ItemModel(artifact.tensors, artifact.config)
    k = ask.integer("k", 20)
    if not 0 < k <= MAX_K:
        raise EngineRefusal("bad_request", f"k must be between 1 and {MAX_K}.")
    similar_to = None if ask.body.get("similar_to") is None else ask.text("similar_to")
    history = ask.texts("history")
    try:
        scored = recommend_scores(
            model, history=history, similar_to=similar_to, exclude=ask.texts("exclude"), k=k
        )
    except CoreError as error:
        raise EngineRefusal(error.code, "similar_to is not in this model's catalogue.") from error
    basis = model.basis(history) if similar_to is None else SIMILAR
    return {"items": [[item, score] for item, score in scored], "basis": basis}
