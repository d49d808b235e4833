"""The classifier that every server here runs: MiniLM, mean pooling, a head of 21 classes; one thread, float32."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

BASE = Path(os.environ["PEER_BASE"])
HEAD = Path(os.environ["PEER_HEAD"])  # safetensors with weight [21, 384] and bias [21]
MAX_TOKENS = 256
MAX_BATCH = 64
TOP = 10


class Classifier:
    """As the model's card shows it: tokenizer with padding, AutoModel, mean over the mask, unit norm."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        self.tokenizer = AutoTokenizer.from_pretrained(BASE, local_files_only=True)
        self.model = AutoModel.from_pretrained(BASE, local_files_only=True, dtype=torch.float32).eval()
        head = load_file(HEAD)
        self.weight, self.bias = head["weight"], head["bias"]

    def __call__(self, texts: Sequence[str]) -> list[list[list[Any]]]:
        """The ten likeliest classes of each text, best first."""
        batch = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        hidden = self.model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).float()
        pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
        return best(pooled @ self.weight.T + self.bias)


class Packed(Classifier):
    """What a careful user would write in its place: no padding, all rows of a batch behind one another."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer

        from modeling.serving.bert import Bert

        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        self.bert = Bert(BASE)
        self.texts = Tokenizer.from_file(str(BASE / "tokenizer.json"))
        self.texts.enable_truncation(MAX_TOKENS)
        self.texts.no_padding()
        head = load_file(HEAD)
        self.weight, self.bias = head["weight"], head["bias"]

    def __call__(self, texts: Sequence[str]) -> list[list[list[Any]]]:
        """The same answers."""
        rows = [encoding.ids for encoding in self.texts.encode_batch_fast(list(texts))]
        return best(self.bert.embed(rows) @ self.weight.T + self.bias)


def best(logits: torch.Tensor) -> list[list[list[Any]]]:
    """[[class, probability]…] per row."""
    values, classes = torch.softmax(logits, 1).topk(TOP)
    return [
        [[f"class-{one}", value] for one, value in zip(row, shares, strict=True)]
        for row, shares in zip(classes.tolist(), values.tolist(), strict=True)
    ]


def chosen() -> Classifier:
    """The padded one, or the packed one where PEER_PACKED=1."""
    return Packed() if os.environ.get("PEER_PACKED") == "1" else Classifier()


def text_of(body: bytes | dict[str, Any]) -> str:
    """The text of a request."""
    values = json.loads(body) if isinstance(body, bytes) else body
    return str(values["inputs"][0])
