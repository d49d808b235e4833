"""Chat by LoRA on every linear layer, under Opacus' per-example gradients: nothing cached, made for a GPU.

The artefact holds `lora.<module path>.A [r, in]` and `.B [out, r]`, with `rank` and `alpha` in its config.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from modeling.core import bases, lora
from modeling.core.chat_adapter import by_owner, token_scores
from modeling.core.chat_hidden import Indices, quick_dtype, some
from modeling.core.chat_plans import TRAIN
from modeling.core.chat_run import BETAS, Run, Vector, chosen_rows, mechanism_of
from modeling.core.chat_tokens import ChatTokens, Conversation
from modeling.core.device import choose
from modeling.core.encoder import pad
from modeling.core.memory import MicroBatches, micro_batches, token_budget, token_rows
from modeling.core.noise import NoiseSource
from modeling.core.privacy import OpenStepper, PrivateStepper, Stepper
from modeling.core.types import Checkpoint, CoreError, Event, Phase, Plan, Tensors, TrainingData

ANSWER_TOKENS = 64  # random ones of a conversation that a step looks at: the vocabulary is most of the memory
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class ChatModel(nn.Module):  # type: ignore[misc]
    """Token ids to last hidden states, a frozen causal model with adapters on the linear layers of its body."""

    def __init__(
        self,
        folder: Path,
        *,
        rank: int,
        alpha: float,
        device: torch.device,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self._dtype = dtype or quick_dtype(device)
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            str(folder),
            local_files_only=True,
            dtype=self._dtype,
            attn_implementation="eager" if device.type == "cpu" else "sdpa",
        )
        if not hasattr(self.model.base_model, "layers"):
            raise CoreError("This base model cannot be tuned for chat.", code="unknown_architecture")
        linear = {
            path.rsplit(".", 1)[-1]
            for path, module in self.model.base_model.layers.named_modules()
            if isinstance(module, nn.Linear)
        }
        lora.attach(self.model, names=sorted(linear), rank=rank, alpha=alpha)
        self.to(device)
        self.device = device

    @property
    def vocabulary(self) -> torch.Tensor:
        """The output layer's matrix [words, d], frozen."""
        found: torch.Tensor = self.model.get_output_embeddings().weight
        return found

    def token_budget(self, longest: int) -> int:
        """Padded tokens of a micro-batch that fit the device."""
        config = self.model.config
        return token_budget(
            self.device,
            layers=int(config.num_hidden_layers),
            width=int(config.hidden_size),
            heads=int(config.num_attention_heads),
            longest=longest,
        )

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Hidden states [b, t, d] after the final norm."""
        with torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
            body = self.model.base_model
            hidden: torch.Tensor = body(
                input_ids=tokens, attention_mask=mask, use_cache=False
            ).last_hidden_state
        return hidden


class LoraTuner:
    """Adam on the adapters; per-example gradients by hooks, clipped per unit and noised once a step."""

    def __init__(
        self,
        plan: Plan,
        model: ChatModel,
        units: Sequence[int],
        conversations: Sequence[Conversation],
        noise: NoiseSource,
    ) -> None:
        self.module, self._plan, self._conversations = model, plan, conversations
        kept = [index for index, item in enumerate(conversations) if len(item.answers)]
        owners = sorted({units[index] for index in kept})
        self._number = {unit: number for number, unit in enumerate(owners)}
        # The rows' labels are the conversations that they came from.
        self._rows = token_rows(
            [conversations[index].ids.tolist() for index in kept],
            np.array(kept, dtype=np.int64),
            np.array([self._number[units[index]] for index in kept], dtype=np.int64),
        )
        self._batches = MicroBatches(self._rows, tokens=model.token_budget(int(plan.settings["max_tokens"])))
        self._named = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._optimizer: torch.optim.Optimizer = torch.optim.Adam(
            list(self._named.values()), lr=float(plan.settings["learning_rate"]), betas=BETAS
        )
        self.stepper = self._stepper(noise)
        self._choice = np.random.default_rng()

    def _stepper(self, noise: NoiseSource) -> Stepper:
        batch, mechanism = float(self._plan.settings["batch"]), mechanism_of(self._plan, TRAIN)
        if mechanism is None:
            return OpenStepper(self.module, self._optimizer, expected_batch=batch)
        return PrivateStepper(
            self.module,
            self._optimizer,
            sigma=mechanism.sigma,
            clip=mechanism.clip,
            expected_batch=batch,
            source=noise,
        )

    def step(self, units: Sequence[int]) -> None:
        """See Tuner."""
        self._batches.accumulate(self._numbers(units), self.stepper, self.losses)
        self.stepper.finish()

    def _numbers(self, units: Sequence[int]) -> Indices:
        """Of those units that have answers."""
        found = [self._number[unit] for unit in units if unit in self._number]
        return np.array(found, dtype=np.int64)

    def losses(self, rows: Indices) -> torch.Tensor:
        """The mean loss over random answer tokens of each row, float32 [b]."""
        hidden, targets, weight, owner = self._hidden(self.stepper.model, rows, ANSWER_TOKENS)
        vocabulary = self.module.vocabulary
        logits = torch.nn.functional.linear(hidden.to(vocabulary.dtype), vocabulary).float()
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none") * weight
        return torch.zeros(len(rows), device=losses.device).index_add(0, owner, losses)

    def _hidden(
        self, model: nn.Module, rows: Indices, tokens: int | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(hidden [m, d], targets [m], weight [m], row in the batch [m]) of at most `tokens` answer tokens a row.

        A row's weights sum to 1: the mean within the sequence.
        """
        device = self.module.device
        found = [self._conversations[int(self._rows.labels[row])] for row in rows]
        picked = [some(len(item.answers), tokens, self._choice).numpy() for item in found]
        hidden = model(*pad([self._rows.ids[row] for row in rows], device))
        sizes = [len(kept) for kept in picked]
        places = np.concatenate([item.answers[kept] for item, kept in zip(found, picked, strict=True)])
        owner = np.repeat(np.arange(len(rows)), sizes)
        ids = np.concatenate([item.ids[item.answers[kept]] for item, kept in zip(found, picked, strict=True)])
        weight = torch.from_numpy(np.repeat(1.0 / np.array(sizes), sizes)).float().to(device)
        row, place, target = (torch.from_numpy(part).to(device) for part in (owner, places - 1, ids))
        return hidden[row, place], target, weight, row

    def quality(self, units: Sequence[int]) -> Vector:
        """See Tuner."""
        owners, scores = [], []
        vocabulary = self.module.vocabulary
        parts = micro_batches(self._rows, self._numbers(units), batch_tokens=self._batches.tokens)
        for rows, belongs in parts:
            with torch.no_grad():
                hidden, targets, weight, owner = self._hidden(self.module, rows, None)
            _, unit, sizes = np.unique(belongs, return_inverse=True, return_counts=True)
            shares = torch.from_numpy(1.0 / sizes[unit]).float().to(weight.device)
            scores.append(token_scores(hidden, targets, weight * shares[owner], vocabulary=vocabulary))
            owners.append(belongs[owner.cpu().numpy()])
        return by_owner(torch.cat(scores), np.concatenate(owners)) if scores else np.zeros((0, 2))

    def state(self) -> Tensors:
        """See Tuner."""
        found: Tensors = {}
        for name, value in self._named.items():
            found[f"value.{name}"] = value.detach().cpu().numpy().copy()
            for moment in _MOMENTS:
                if moment in self._optimizer.state[value]:
                    found[f"{moment}.{name}"] = self._optimizer.state[value][moment].cpu().numpy().copy()
        return found

    def restore(self, tensors: Tensors) -> None:
        """See Tuner."""
        for name, value in self._named.items():
            with torch.no_grad():
                value.copy_(torch.from_numpy(np.asarray(tensors[f"value.{name}"])))
            for moment in _MOMENTS:
                stored = tensors.get(f"{moment}.{name}")
                if stored is not None:
                    where = "cpu" if moment == "step" else value.device
                    self._optimizer.state[value][moment] = torch.from_numpy(np.array(stored)).to(where)

    def tensors(self) -> Tensors:
        """See Tuner."""
        return lora.read(self.module.model)

    def config(self) -> dict[str, Any]:
        """See Tuner."""
        rank = int(self._plan.settings["rank"])
        return {"rank": rank, "alpha": float(rank)}


def train(
    plan: Plan,
    data: TrainingData,
    *,
    models_dir: Path,
    resume: Checkpoint | None,
    spent: Mapping[str, int],
) -> Iterator[Event]:
    """Tokenise (spends nothing), then charge and step one by one; held-out before and after."""
    folder = bases.path(models_dir, plan.recipe.base)
    started = time.monotonic()
    train_rows, held_out = chosen_rows(plan, data)
    rows = [*train_rows, *held_out]
    tokens, longest = ChatTokens(folder), int(plan.settings["max_tokens"])
    conversations = [tokens.encode(data.conversations[row], longest) for row in rows]
    yield Phase("tokenising", len(rows), len(rows), time.monotonic() - started)
    rank = int(plan.settings["rank"])
    device = choose(str(plan.settings["device"]))
    noise = NoiseSource()
    model = ChatModel(folder, rank=rank, alpha=float(rank), device=device)
    tuner = LoraTuner(plan, model, [data.units[row] for row in rows], conversations, noise)
    people = sorted({data.units[row] for row in train_rows})
    others = sorted({data.units[row] for row in held_out})
    run = Run(plan, tuner, people=people, others=others, resume=resume, spent=spent, noise=noise)
    yield from run.events(started)
