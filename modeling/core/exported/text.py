"""Classifies texts with a downloaded model."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from modeling.core.encoder import MAX_TOKENS, batches_by_length, pad, pool
from modeling.core.exported.reading import HERE, base_of, read_artefact
from modeling.core.predictor import classify_probabilities

BATCH_TOKENS = 4096


def load_encoder(folder: Path, base: str) -> tuple[Any, Any]:
    """(tokenizer, encoder) with the adapter of the download, if it has one, in float32."""
    tokenizer = AutoTokenizer.from_pretrained(str(folder / "tokenizer"))
    if (folder / "model").is_dir():  # the whole encoder was fine-tuned
        encoder = AutoModel.from_pretrained(
            str(folder / "model"), add_pooling_layer=False, dtype=torch.float32
        )
        return tokenizer, encoder.eval()
    encoder = AutoModel.from_pretrained(base, add_pooling_layer=False, dtype=torch.float32)
    if (folder / "adapter").is_dir():
        from peft import PeftModel

        encoder = PeftModel.from_pretrained(encoder, str(folder / "adapter"))
    return tokenizer, encoder.eval()


def probabilities(texts: Sequence[str], folder: Path = HERE, base: str = "") -> Any:
    """Calibrated probabilities, float32 [texts, labels]; `base` is a folder or a name, if not the usual one."""
    tensors, config = read_artefact(folder)
    tokenizer, encoder = load_encoder(folder, base or base_of(folder, _PUBLIC_NAME))
    ids = tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
    features = np.zeros((len(ids), tensors["head.weight"].shape[1]), dtype=np.float32)
    for batch in batches_by_length([len(row) for row in ids], BATCH_TOKENS):
        tokens, mask = pad([ids[index] for index in batch], torch.device("cpu"))
        with torch.inference_mode():
            hidden = encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        features[batch] = pool(hidden.float(), mask).numpy()
    return classify_probabilities(tensors, config, features)


_PUBLIC_NAME = "sentence-transformers/all-MiniLM-L6-v2"


def main() -> int:
    """python predict.py "a text" "another text" """
    texts = sys.argv[1:] or [line.rstrip("\n") for line in sys.stdin]
    labels = read_artefact(HERE)[1]["labels"]
    for text, row in zip(texts, probabilities(texts), strict=True):
        order = np.argsort(-row)[:5]
        print(json.dumps({"text": text, "labels": {labels[at]: round(float(row[at]), 4) for at in order}}))
    return 0
