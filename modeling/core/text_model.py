"""A sentence encoder with adapters under a softmax head, and micro-batches of tokens that keep units whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from modeling.core import lora
from modeling.core.encoder import batches_by_length, fast_dtype, pad, pool
from modeling.core.softmax_head import BIAS_FEATURE
from modeling.core.types import Array, Tensors

ADAPTED = ("query", "value")


class TextModel(nn.Module):  # type: ignore[misc]
    """Token ids to logits [b, K]; the encoder is frozen but for its adapters, dropout is 0 (hooks need train mode)."""

    def __init__(self, folder: Path, *, classes: int, rank: int, alpha: float, device: torch.device) -> None:
        super().__init__()
        config: Any = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        config.hidden_dropout_prob = 0.0
        config.attention_probs_dropout_prob = 0.0
        self.encoder: nn.Module = AutoModel.from_pretrained(
            str(folder),
            config=config,
            local_files_only=True,
            add_pooling_layer=False,
            dtype=torch.float32,
            # On CPU the backward pass of the fused attention takes half of a step.
            attn_implementation="eager" if device.type == "cpu" else "sdpa",
        )
        lora.attach(self.encoder, names=ADAPTED, rank=rank, alpha=alpha)
        self.head = nn.Linear(int(config.hidden_size) + 1, classes, bias=False)
        self.to(device)
        self._dtype = fast_dtype(device)

    def features(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Unit-norm embeddings, float32 [b, d]."""
        with torch.autocast(tokens.device.type, self._dtype, enabled=self._dtype != torch.float32):
            hidden = self.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        return pool(hidden.float(), mask)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits, float32 [b, K]."""
        x = self.features(tokens, mask)
        bias = torch.full((len(x), 1), BIAS_FEATURE, device=x.device)
        logits: torch.Tensor = self.head(torch.cat([x, bias], dim=1))
        return logits

    def embed(self, ids: Sequence[Sequence[int]], *, batch_tokens: int) -> Array:
        """Embeddings of tokenised texts with the adapters as they are now, float32 [n, d]."""
        device = self.head.weight.device
        result = np.empty((len(ids), self.head.in_features - 1), dtype=np.float32)
        for batch in batches_by_length([len(row) for row in ids], batch_tokens):
            with torch.no_grad():
                result[batch] = self.features(*pad([ids[index] for index in batch], device)).cpu().numpy()
        return result

    def set_head(self, weights: Array) -> None:
        """Put the head's weights [K, d + 1] (bias feature last) in place."""
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(np.asarray(weights, dtype=np.float32)))

    def tensors(self) -> Tensors:
        """The artefact's tensors: head.weight, head.bias and the adapters."""
        weight = self.head.weight.detach().cpu().numpy()
        head = {"head.weight": weight[:, :-1].copy(), "head.bias": weight[:, -1] * np.float32(BIAS_FEATURE)}
        return {**head, **lora.read(self.encoder)}


@dataclass(frozen=True)
class TokenRows:
    """Tokenised rows with class index [n] and unit [n], ordered by unit: unit u owns rows starts[u]..starts[u+1]."""

    ids: list[list[int]]
    labels: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    @property
    def units(self) -> int:
        return len(self.starts) - 1


def token_rows(
    ids: Sequence[list[int]], labels: npt.NDArray[np.int64], units: npt.NDArray[np.int64]
) -> TokenRows:
    """Group rows by unit."""
    order = np.argsort(units, kind="stable")
    _, first = np.unique(units[order], return_index=True)
    starts = np.append(first, len(order)).astype(np.int64)
    return TokenRows([ids[row] for row in order], labels[order], starts)


def micro_batches(
    rows: TokenRows, chosen: npt.NDArray[np.int64], *, batch_tokens: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """(row indices, unit of each row) of the chosen units, similar lengths together and no unit cut in two."""
    owned = [range(int(rows.starts[unit]), int(rows.starts[unit + 1])) for unit in chosen]
    # A unit's cost is what its rows take when padded to its longest.
    cost = [max(len(rows.ids[row]) for row in span) * len(span) for span in owned]
    for batch in batches_by_length(cost, batch_tokens):
        pairs = [(row, int(chosen[index])) for index in batch for row in owned[index]]
        yield np.array([row for row, _ in pairs]), np.array([unit for _, unit in pairs])
