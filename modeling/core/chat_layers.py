"""Low-rank adapters in the top layers of a frozen model, from an answer's opening on, with one copy for each example.

Below the adapters nothing ever changes, and before the answer opens the top layers are the base's own: so what they are
given, and the keys and values of the prompt, are read once and cached. Each example of a micro-batch gets its own copy
of A and B, which enter by batched products; autograd then gives each copy its own gradient.

The artefact holds `lora.<module path>.A [r, in]` and `.B [out, r]`, with `rank`, `alpha` and `invocation` (the tokens
that open an answer) in its config: an activated LoRA, which changes nothing before the last invocation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from modeling.core.chat_adapter import by_owner, output_gradients, token_scores
from modeling.core.chat_hidden import FrozenChat, Indices, Read, some
from modeling.core.chat_store import CACHE_BYTES, SealedStore
from modeling.core.chat_tokens import Conversation, Turn
from modeling.core.types import Tensors

_TOKENS_AT_ONCE = 1024  # padded tokens of a micro-batch, prompts counted by a quarter


class CopiedLora(nn.Module):  # type: ignore[misc]
    """A frozen linear layer; with `pair` set, row i also goes through its own A and B of [b, r, in], [b, out, r]."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.pair: tuple[torch.Tensor, torch.Tensor] | None = None
        self.scale = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[b, t, in] -> [b, t, out]."""
        result: torch.Tensor = self.base(x)
        if self.pair is None:
            return result
        down, up = self.pair
        return torch.baddbmm(result, torch.bmm(x, down.transpose(1, 2)), up.transpose(1, 2), alpha=self.scale)


@dataclass(frozen=True)
class Example:
    """One turn of one conversation, ready for the top layers: `lower` [s, d] from its opening on, `past` of its prompt.

    `places` [m] within it predict `targets` [m]; `weight` is what each counts.
    """

    owner: int
    lower: torch.Tensor
    past: torch.Tensor
    places: torch.Tensor
    targets: torch.Tensor
    weight: float

    @property
    def cost(self) -> float:
        """Tokens of work."""
        return len(self.lower) + int(self.past.shape[3]) / 4


class _Prompt:
    """Keys and values of the prompts, as the attention layers of transformers ask for them."""

    def __init__(self, past: torch.Tensor, first_layer: int) -> None:
        self._past, self._first = past, first_layer

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Both with the prompt's in front, [b, heads, p + s, size]."""
        before = self._past[:, :, layer_idx - self._first]
        return torch.cat([before[:, 0], keys], dim=2), torch.cat([before[:, 1], values], dim=2)


class TopLayers:
    """The top layers of a model and their adapters, all of them one flat float32 vector, A and B layer by layer."""

    def __init__(self, frozen: FrozenChat, *, top: int, rank: int) -> None:
        self.frozen, self.rank, self.alpha = frozen, rank, float(rank)
        body = frozen.body
        self.top = min(top, len(body.layers))
        self.first_layer = len(body.layers) - self.top
        self._body, self._layers = body, list(body.layers)[self.first_layer :]
        # The fused attention's backward pass takes longer than the plain one on a CPU.
        frozen.model.set_attn_implementation("eager")
        self._loras: dict[str, CopiedLora] = {}
        for number, layer in enumerate(self._layers, start=self.first_layer):
            for path in [path for path, module in layer.named_modules() if isinstance(module, nn.Linear)]:
                parent = layer.get_submodule(path.rpartition(".")[0])
                wrapped = CopiedLora(layer.get_submodule(path))
                setattr(parent, path.rpartition(".")[2], wrapped)
                self._loras[f"model.layers.{number}.{path}"] = wrapped
        self.flat = self._start().to(frozen.device)

    def _start(self) -> torch.Tensor:
        """A from a fixed public draw, B zero: the base model's own answers."""
        source = torch.Generator().manual_seed(0)
        parts = []
        for lora in self._loras.values():
            wide, out = lora.base.in_features, lora.base.out_features
            parts.append(torch.randn(self.rank * wide, generator=source) / math.sqrt(wide))
            parts.append(torch.zeros(out * self.rank))
        return torch.cat(parts)

    def _split(self) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
        """(path, A [r, in], B [out, r]) as views of the flat vector."""
        at = 0
        for path, lora in self._loras.items():
            wide, out = lora.base.in_features, lora.base.out_features
            middle, stop = at + self.rank * wide, at + self.rank * (wide + out)
            yield (
                path,
                self.flat[at:middle].view(self.rank, wide),
                self.flat[middle:stop].view(out, self.rank),
            )
            at = stop

    def tensors(self) -> Tensors:
        """What the artefact stores."""
        found: Tensors = {}
        for path, down, up in self._split():
            found[f"lora.{path}.A"] = down.cpu().numpy().copy()
            found[f"lora.{path}.B"] = up.cpu().numpy().copy()
        return found

    def example_gradients(self, examples: Sequence[Example]) -> torch.Tensor:
        """Gradient of each example's own loss, float32 [b, parameters]."""
        leaves = self._copies(len(examples))
        for leaf in leaves:
            leaf.requires_grad_()
        hidden, targets, weight = self._picked(examples)
        outward = output_gradients(hidden.detach(), targets, weight, vocabulary=self.frozen.vocabulary)
        found = torch.autograd.grad(hidden, leaves, outward.to(hidden.dtype))
        self._release()
        return torch.cat([part.flatten(1).float() for part in found], dim=1)

    def scores(self, examples: Sequence[Example]) -> torch.Tensor:
        """Sums of weight · (guessed right, loss in nats) of each example, float32 [b, 2]."""
        with torch.no_grad():
            self._copies(len(examples))
            hidden, targets, weight = self._picked(examples)
            self._release()
        rows = token_scores(hidden, targets, weight, vocabulary=self.frozen.vocabulary)
        owner = torch.repeat_interleave(
            torch.arange(len(examples)), torch.tensor([len(item.places) for item in examples])
        )
        return torch.zeros(len(examples), 2).index_add_(0, owner, rows.cpu())

    def _copies(self, count: int) -> list[torch.Tensor]:
        leaves: list[torch.Tensor] = []
        dtype = self.frozen.vocabulary.dtype
        for (_, down, up), lora in zip(self._split(), self._loras.values(), strict=True):
            pair = tuple(part.to(dtype).expand(count, -1, -1).clone() for part in (down, up))
            lora.pair, lora.scale = (pair[0], pair[1]), self.alpha / self.rank
            leaves += pair
        return leaves

    def _release(self) -> None:
        for lora in self._loras.values():
            lora.pair = None

    def _picked(self, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(final hidden [m, d], targets [m], weight [m]) of all examples' places, one example after the other."""
        hidden = self._forward(examples)
        device = hidden.device
        rows = torch.cat([torch.full((len(item.places),), row) for row, item in enumerate(examples)])
        places = torch.cat([item.places for item in examples])
        weight = torch.cat([torch.full((len(item.places),), item.weight) for item in examples])
        targets = torch.cat([item.targets for item in examples])
        return hidden[rows.to(device), places.to(device)], targets.to(device), weight.to(device)

    def _forward(self, examples: Sequence[Example]) -> torch.Tensor:
        """Hidden states [b, longest, d] after the final norm; prompts padded on the left of the answers, masked."""
        lengths = torch.tensor([len(item.lower) for item in examples])
        prompts = torch.tensor([item.past.shape[3] for item in examples])
        longest, before = int(lengths.max()), int(prompts.max())
        first = examples[0]
        lower = first.lower.new_zeros(len(examples), longest, first.lower.shape[1])
        sides, top, heads, _, size = first.past.shape
        past = first.past.new_zeros(len(examples), sides, top, heads, before, size)
        for row, item in enumerate(examples):
            lower[row, : len(item.lower)] = item.lower
            past[row, :, :, :, : item.past.shape[3]] = item.past
        mask = _mask(prompts, before, longest, lower.dtype).to(lower.device)
        positions = (prompts[:, None] + torch.arange(longest)[None]).to(lower.device)
        turned = self._body.rotary_emb(lower, position_ids=positions)
        prompt, hidden = _Prompt(past, self.first_layer), lower
        for layer in self._layers:
            hidden = layer(
                hidden,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=prompt,
                position_embeddings=turned,
            )
        found: torch.Tensor = self._body.norm(hidden)
        return found


def _mask(prompts: torch.Tensor, before: int, longest: int, dtype: torch.dtype) -> torch.Tensor:
    """Additive [b, 1, longest, before + longest]: a token sees its own prompt and the answer up to itself."""
    prompt = torch.arange(before)[None, :] < prompts[:, None]
    answer = torch.ones(longest, longest, dtype=torch.bool).tril()
    seen = torch.cat(
        [
            prompt[:, None, :].expand(-1, longest, -1),
            answer[None].expand(len(prompts), -1, -1),
        ],
        dim=2,
    )
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


class LayerCache:
    """What the top layers start from, of many conversations; examples of it by unit."""

    def __init__(
        self, units: Sequence[int], conversations: Sequence[Conversation], *, limit_bytes: int = CACHE_BYTES
    ) -> None:
        """`units[i]` says whose conversation i is."""
        self.store = SealedStore(limit_bytes=limit_bytes)
        self._conversations = conversations
        self._of_unit: dict[int, list[int]] = {}
        for index, unit in enumerate(units):
            if conversations[index].turns:
                self._of_unit.setdefault(unit, []).append(index)

    def put(self, index: int, read: Read) -> None:
        """What was read of conversation `index`."""
        if read.lower is not None and read.past is not None:
            self.store.put(2 * index, read.lower)
            self.store.put(2 * index + 1, read.past)

    def training(
        self, units: Sequence[int] | Indices, *, tokens: int, choice: np.random.Generator
    ) -> list[Example]:
        """One turn of each conversation, drawn by its tokens, and `tokens` random tokens of it at most.

        So the expected loss of a conversation is the mean over its answer tokens. A unit's weights sum to 1.
        """
        found = []
        for unit in sorted(int(unit) for unit in units):
            rows = self._of_unit.get(unit, ())
            for index in rows:
                turns = self._conversations[index].turns
                sizes = np.array([turn.last - turn.first for turn in turns], dtype=float)
                turn = turns[int(choice.choice(len(turns), p=sizes / sizes.sum()))]
                places = some(turn.last - turn.first, tokens, choice)
                found.append(self._example(unit, index, turn, places, 1.0 / (len(places) * len(rows))))
        return found

    def whole(self, units: Sequence[int] | Indices) -> Iterator[Example]:
        """Every turn of these units with all its tokens; a unit's weights sum to 1."""
        for unit in sorted(int(unit) for unit in units):
            rows = self._of_unit.get(unit, ())
            for index in rows:
                turns = self._conversations[index].turns
                count = sum(turn.last - turn.first for turn in turns) * len(rows)
                for turn in turns:
                    yield self._example(unit, index, turn, torch.arange(turn.last - turn.first), 1.0 / count)

    def _example(self, unit: int, index: int, turn: Turn, kept: torch.Tensor, weight: float) -> Example:
        item = self._conversations[index]
        lower, past = self.store.get(2 * index), self.store.get(2 * index + 1)
        first = item.turns[0].open
        stop = turn.first + int(kept[-1])  # what comes after the last token that counts changes nothing
        return Example(
            unit,
            lower[turn.open - first : stop - first],
            past[:, :, :, : turn.open],
            kept + (turn.first - 1 - turn.open),
            torch.from_numpy(item.ids[turn.first : turn.last])[kept],
            weight,
        )


def micro_batches(examples: Sequence[Example]) -> Iterator[list[Example]]:
    """Similar lengths together, about a thousand padded tokens each, and no unit's examples in two of them."""
    groups: dict[int, list[Example]] = {}
    for item in examples:
        groups.setdefault(item.owner, []).append(item)
    batch: list[Example] = []
    for group in sorted(groups.values(), key=lambda group: max(item.cost for item in group)):
        longest = max(item.cost for item in group)
        if batch and longest * (len(batch) + len(group)) > _TOKENS_AT_ONCE:
            yield batch
            batch = []
        batch += group
    if batch:
        yield batch


def unit_gradients(model: TopLayers, examples: Sequence[Example]) -> Iterator[torch.Tensor]:
    """Gradients of units in blocks [units, parameters], float32: a unit's examples are added up."""
    for batch in micro_batches(examples):
        rows = model.example_gradients(batch)
        owners, unit = np.unique([item.owner for item in batch], return_inverse=True)
        if len(owners) == len(rows):
            yield rows
            continue
        summed = torch.zeros(len(owners), rows.shape[1], device=rows.device)
        yield summed.index_add_(0, torch.from_numpy(unit).to(rows.device), rows)


def quality(model: TopLayers, examples: Sequence[Example]) -> npt.NDArray[np.float64]:
    """(share of tokens guessed, loss in nats) of each unit present, float64 [units, 2]; private until noised."""
    owners: list[int] = []
    scores = []
    for batch in micro_batches(examples):
        owners += [item.owner for item in batch]
        scores.append(model.scores(batch))
    return by_owner(torch.cat(scores), np.array(owners))
