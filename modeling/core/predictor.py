"""From features to answers: the arithmetic shared by the engine and the held-out evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np

from modeling.core.types import Array, Tensors


def classify_logits(tensors: Tensors, config: dict[str, Any], features: Array) -> Array:
    """Logits [n, K] of unit-norm features [n, d]: (x Wᵀ + b) / temperature."""
    logits = features @ tensors["head.weight"].T + tensors["head.bias"]
    return np.asarray(logits / float(config.get("temperature", 1.0)), dtype=np.float32)


def classify_probabilities(tensors: Tensors, config: dict[str, Any], features: Array) -> Array:
    """Calibrated probabilities [n, K]: of one class a row (rows sum to 1), or of each label with `multi_label`."""
    logits = classify_logits(tensors, config, features)
    return sigmoid(logits) if config.get("multi_label") else softmax(logits)


def softmax(logits: Array) -> Array:
    """Row-wise softmax of float32 [n, K]."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)


def sigmoid(logits: Array) -> Array:
    """Element-wise logistic function of float32 [n, K], by tanh so that nothing overflows."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)), dtype=np.float32)
