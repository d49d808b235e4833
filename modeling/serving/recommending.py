"""Recommendations: exact scores over a version's own catalogue, in numpy on a side thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modeling.core.recommend_columns import Columns
from modeling.core.recommend_ranking import Wish, rank
from modeling.core.recommend_scores import ItemModel
from modeling.core.types import Array, CoreError
from modeling.serving.asks import Ask
from modeling.serving.store import Artifact, ArtifactStore
from modeling.serving.turns import Turns
from modeling.serving.wire import EngineRefusal

MAX_K = 1000
_SENTENCES = {"unknown_item": "similar_to is not in this model's catalogue."}


class RecommendRunner:
    """Scores a tenant's requests one after another; the history lives in the request only."""

    def __init__(self, store: ArtifactStore, turns: Turns) -> None:
        self._store = store
        self._turns = turns

    async def recommend(self, ask: Ask) -> dict[str, Any]:
        """A wish (see recommend_ranking) -> items [[id, score]…], best first, their basis, and unknown ids by field."""
        reference = ask.reference
        if reference is None:
            raise EngineRefusal("wrong_task", "The base model has no items: train a recommender first.")
        artifact = await self._store.get(reference)
        return await self._turns.run(ask.tenant, _recommend, artifact, ask)


def _recommend(artifact: Artifact, ask: Ask) -> dict[str, Any]:
    loaded = _loaded(artifact)
    k = ask.integer("k", 20)
    if not 0 < k <= MAX_K:
        raise EngineRefusal("bad_request", f"k must be between 1 and {MAX_K}.")
    wish = Wish(
        history=ask.texts("history"),
        similar_to=None if ask.body.get("similar_to") is None else ask.text("similar_to"),
        exclude=ask.texts("exclude"),
        candidates=None if ask.body.get("candidates") is None else ask.texts("candidates"),
        kept=_filter(ask, "filter"),
        dropped=_filter(ask, "exclude_filter"),
        diversity=min(1.0, max(0.0, ask.number("diversity", 0.0))),
        k=k,
    )
    try:
        found = rank(loaded.model, loaded.columns, loaded.looks, wish)
    except CoreError as error:
        raise EngineRefusal(error.code, _SENTENCES.get(error.code, error.message)) from error
    items = [[item, score] for item, score in found.items]
    return {"items": items, "basis": found.basis, "unknown": dict(found.unknown)}


@dataclass(frozen=True)
class _Loaded:
    """An artefact ready to rank: made once, its matrices used where they lie."""

    model: ItemModel
    columns: Columns
    looks: Array | None


def _loaded(artifact: Artifact) -> _Loaded:
    known = artifact.extras.get("items")
    if isinstance(known, _Loaded):
        return known
    if artifact.config.get("task") != "recommendation":
        raise EngineRefusal("wrong_task", "This model is not a recommender.")
    tensors, config = artifact.tensors, artifact.config
    made = _Loaded(ItemModel(tensors, config), Columns(tensors, config), tensors.get("items.features"))
    artifact.extras["items"] = made
    return made


def _filter(ask: Ask, name: str) -> Mapping[str, Any]:
    """Conditions by column; raises EngineRefusal `bad_request` for what is no list and no range."""
    value = ask.body.get(name) or {}
    if not isinstance(value, dict) or not all(isinstance(one, list | dict) for one in value.values()):
        raise EngineRefusal("bad_request", f"{name} is not an object of lists and ranges.")
    return value
