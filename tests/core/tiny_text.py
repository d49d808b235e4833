"""A tiny random sentence encoder in a models folder, and texts whose class shows in their words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from modeling.core.bases import BASES
from modeling.core.types import Recipe, Shape, TrainingData

WORDS = [f"word{index}" for index in range(60)]
LABELS = ("word1 word2", "word21 word22", "word41 word42")


def make_base(models_dir: Path) -> Path:
    """Write the encoder where `minilm-l6` is looked for; returns its folder."""
    folder = models_dir / BASES["minilm-l6"].folder_name
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=65,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def make_data(units: int, *, rows_per_unit: int = 1, held_out_share: float = 0.2) -> TrainingData:
    """Rows of four words from the class's own third of the vocabulary; every fifth unit or so is held out."""
    random = np.random.default_rng(0)
    texts, labels, owners = [], [], []
    for unit in range(units):
        for _ in range(rows_per_unit):
            label = int(random.integers(3))
            texts.append(" ".join(WORDS[20 * label + int(word)] for word in random.integers(20, size=4)))
            labels.append(label)
            owners.append(unit)
    held_out = [unit < held_out_share * units for unit in range(units)]
    return TrainingData(units=owners, held_out=held_out, texts=texts, labels=labels)


def make_recipe(method: str, epsilon: float | None = 8.0, **changes: object) -> Recipe:
    reason = "a test" if epsilon is None else ""
    recipe = Recipe(
        "classification", "minilm-l6", method, labels=LABELS, epsilon=epsilon, privacy_off_reason=reason
    )
    return recipe.__class__(**{**recipe.__dict__, **changes})


def shape_of(data: TrainingData) -> Shape:
    held_out = sum(data.held_out)
    return Shape(len(data.held_out) - held_out, held_out, len(data.texts), classes=3)
