"""A sentence encoder under a softmax head, to be trained through adapters (LoRA) or in all its layers (full)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from modeling.core import lora
from modeling.core.device import training_dtype
from modeling.core.encoder import batches_by_length, pad, pool
from modeling.core.softmax_head import BIAS_FEATURE
from modeling.core.types import Array, Tensors

ADAPTED = ("query", "value")
FULL = "full."  # tensors of an artefact that take the place of the encoder's own


class TextModel(nn.Module):  # type: ignore[misc]
    """Token ids to logits [b, K]; dropout is 0 (hooks need train mode).

    With `rank` 0 all layers of the encoder train and the tables of word, position and type vectors stay as they are:
    most of their rows do not occur in a customer's texts, and noise on them would only harm. `tables` trains them too.
    """

    def __init__(
        self,
        folder: Path,
        *,
        classes: int,
        rank: int,
        device: torch.device,
        alpha: float = 1.0,
        tables: bool = False,
    ) -> None:
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
        if rank:
            lora.attach(self.encoder, names=ADAPTED, rank=rank, alpha=alpha)
        else:
            _train_layers(self.encoder, tables=tables)
        self.head = nn.Linear(int(config.hidden_size) + 1, classes, bias=False)
        self.to(device)
        self._dtype = training_dtype(device)

    @property
    def fast(self) -> bool:
        """Whether layers compute in bfloat16; parameters, clipping and noise stay float32 or better."""
        return bool(self._dtype != torch.float32)

    def features(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Unit-norm embeddings, float32 [b, d]."""
        with torch.autocast(tokens.device.type, self._dtype, enabled=self.fast):
            # Broadcast over the batch, positions and types would hide whose gradient is whose.
            places = torch.arange(tokens.shape[1], device=tokens.device).expand(len(tokens), -1).contiguous()
            hidden = self.encoder(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=places,
                token_type_ids=torch.zeros_like(tokens),
            ).last_hidden_state
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
        """The artefact's tensors: head.weight, head.bias, and the adapters or every trained `full.<name>`."""
        weight = self.head.weight.detach().cpu().numpy()
        head = {"head.weight": weight[:, :-1].copy(), "head.bias": weight[:, -1] * np.float32(BIAS_FEATURE)}
        trained = {
            FULL + name: value.detach().cpu().numpy().copy()
            for name, value in self.encoder.named_parameters()
            if value.requires_grad
        }
        return {**head, **(lora.read(self.encoder) or trained)}


def _train_layers(encoder: nn.Module, *, tables: bool) -> None:
    """Let every parameter train, except the embedding tables unless asked for."""
    for layer in encoder.modules():
        for value in layer.parameters(recurse=False):
            value.requires_grad_(tables or not isinstance(layer, nn.Embedding))


def put_full(encoder: nn.Module, tensors: Tensors) -> None:
    """Put an artefact's `full.<name>` tensors into an encoder; raises KeyError for a name it does not have."""
    own = dict(encoder.named_parameters())
    with torch.no_grad():
        for name, value in tensors.items():
            if name.startswith(FULL):
                own[name.removeprefix(FULL)].copy_(torch.from_numpy(np.asarray(value)))
