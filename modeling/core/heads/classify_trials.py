"""The runs of a sweep over the private text head: texts are embedded once, each run fits on the same features."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from modeling.core import bases, evaluation
from modeling.core.device import choose
from modeling.core.heads.classify import CENTRE_SHARE, NAME_SCALE, constants_of, head_weights
from modeling.core.heads.classify_rows import Rows, config_of, embed_rows, split_rows
from modeling.core.predictor import classify_logits
from modeling.core.softmax_head import BIAS_FEATURE
from modeling.core.types import Array, Event, Plan, Tensors, TrainingData


class TextTrials:
    """Fits of one head on embedded rows."""

    def __init__(self, train: Rows, held_out: Rows, names: Array) -> None:
        """Rows with their features filled in; `names` are the class names' embeddings [K, d]."""
        self._train, self._held_out, self._names = train, held_out, names

    def untrained(self, plan: Plan) -> Tensors:
        """The class names by themselves."""
        weights = np.asarray(NAME_SCALE * self._names, dtype=np.float32)
        centre = np.float32(CENTRE_SHARE) * self._names.mean(axis=0)
        bias = np.float32(constants_of(plan.recipe).offset) - weights @ centre
        return {"head.weight": weights, "head.bias": np.asarray(bias, dtype=np.float32)}

    def fit(self, plan: Plan) -> Tensors:
        """Head weights [K, d] and bias [K] after all steps."""
        weights = head_weights(plan, self._train, self._names)
        return {"head.weight": weights[:, :-1].copy(), "head.bias": weights[:, -1] * np.float32(BIAS_FEATURE)}

    def scores(self, tensors: Tensors) -> npt.NDArray[np.float64]:
        """Each held-out unit's share of correct rows."""
        held_out = self._held_out
        if not len(held_out.labels):
            return np.zeros(0)
        logits = classify_logits(tensors, {}, held_out.features)
        return evaluation.per_unit(evaluation.row_scores(logits, held_out.labels), held_out.units)

    def config(self, plan: Plan) -> dict[str, object]:
        """As of the head."""
        return config_of(plan)


def prepare(plan: Plan, data: TrainingData, models_dir: Path) -> Generator[Event, None, TextTrials]:
    """Embed all rows, reporting how far it is; spends nothing."""
    from modeling.core.encoder import Encoder  # here, so that planning does not load torch

    encoder = Encoder(bases.path(models_dir, plan.recipe.base), device=choose(str(plan.settings["device"])))
    parts = split_rows(data, classes=len(plan.recipe.labels) if plan.recipe.multi_label else 0)
    train, held_out = yield from embed_rows(encoder, *parts)
    return TextTrials(train, held_out, encoder.embed_all(plan.recipe.labels))
