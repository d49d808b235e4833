"""Micro-batches by memory: as many rows at once as the device holds, fewer when it runs out; units stay whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from modeling.core.types import CoreError

if TYPE_CHECKING:
    from modeling.core.privacy import Stepper

Indices = npt.NDArray[np.int64]
_CPU_TOKENS = 2048  # more does not fit the cache, and is no faster
_CPU_BYTES = 1 << 30
_GPU_TOKENS = 1 << 16
_GPU_SHARE = 0.6  # of the free memory: activations are estimated, not measured


@dataclass(frozen=True)
class TokenRows:
    """Tokenised rows with class index [n] and unit [n], ordered by unit: unit u owns rows starts[u]..starts[u+1]."""

    ids: list[list[int]]
    labels: npt.NDArray[np.int64]
    starts: Indices

    @property
    def units(self) -> int:
        return len(self.starts) - 1


def token_rows(ids: Sequence[list[int]], labels: npt.NDArray[np.int64], units: Indices) -> TokenRows:
    """Group rows by unit."""
    order = np.argsort(units, kind="stable")
    _, first = np.unique(units[order], return_index=True)
    starts = np.append(first, len(order)).astype(np.int64)
    return TokenRows([ids[row] for row in order], labels[order], starts)


def token_budget(device: torch.device, *, layers: int, width: int, heads: int, longest: int) -> int:
    """Padded tokens of a micro-batch that fit the device, from its free memory and the size of the encoder.

    Activations of a layer take 34 + 5 · heads · longest / width bytes a token and unit of width at 2 bytes a number
    (Korthikanti et al. 2022); training in float32 doubles that, and gradients kept for clipping double it again.
    """
    per_token = int(4 * layers * width * (34 + 5 * heads * longest / width))
    if device.type != "cuda":
        return max(1, min(_CPU_TOKENS, _CPU_BYTES // per_token))
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(_GPU_TOKENS, int(_GPU_SHARE * free) // per_token))


class MicroBatches:
    """Runs a logical batch through a stepper in parts that fit; a part that does not is split and tried again.

    The logical batch, its noise and its charge are the same however often memory runs out.
    """

    def __init__(self, rows: TokenRows, *, tokens: int) -> None:
        """`tokens`: padded tokens of a micro-batch; a unit that is larger makes one alone."""
        self._rows = rows
        self.tokens = tokens

    def accumulate(
        self, chosen: Indices, stepper: Stepper, losses: Callable[[Indices], torch.Tensor]
    ) -> None:
        """Add the chosen units; `losses` maps row indices [b] to losses [b]. Raises CoreError `out_of_memory`."""
        waiting = list(split(self._rows, chosen, tokens=self.tokens))
        while waiting:
            units = waiting.pop()
            if self._fits(units, stepper, losses):
                continue
            stepper.discard()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if len(units) == 1:
                raise CoreError(
                    "One person's rows do not fit into this machine's memory.", code="out_of_memory"
                )
            self.tokens = max(1, _padded(self._rows, units) // 2)
            waiting += [units[: len(units) // 2], units[len(units) // 2 :]]

    def _fits(self, units: Indices, stepper: Stepper, losses: Callable[[Indices], torch.Tensor]) -> bool:
        index, owner = expand(self._rows, units)
        try:
            found = losses(index)
            stepper.accumulate(found, torch.from_numpy(owner).to(found.device))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device or the machine has no memory left for a tensor."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    words = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in words or "not enough memory" in words or "out of memory" in words
    )


def split(rows: TokenRows, chosen: Indices, *, tokens: int) -> Iterator[Indices]:
    """The chosen units in parts of at most `tokens` padded tokens, similar lengths together, no unit cut in two."""
    longest = {int(unit): _longest(rows, int(unit)) for unit in chosen}
    part: list[int] = []
    count = 0
    for unit in sorted(longest, key=lambda unit: (longest[unit], unit)):
        owned = int(rows.starts[unit + 1] - rows.starts[unit])
        # The newcomer has the longest row, so it decides what the whole part would be padded to.
        if part and longest[unit] * (count + owned) > tokens:
            yield np.array(part, dtype=np.int64)
            part, count = [], 0
        part.append(unit)
        count += owned
    if part:
        yield np.array(part, dtype=np.int64)


def expand(rows: TokenRows, units: Indices) -> tuple[Indices, Indices]:
    """(row indices, unit of each row) of some units."""
    spans = [np.arange(rows.starts[unit], rows.starts[unit + 1]) for unit in units]
    owner = np.repeat(units, [len(span) for span in spans])
    return np.concatenate(spans).astype(np.int64), owner


def micro_batches(
    rows: TokenRows, chosen: Indices, *, batch_tokens: int
) -> Iterator[tuple[Indices, Indices]]:
    """(row indices, unit of each row) of each part of the chosen units."""
    for units in split(rows, chosen, tokens=batch_tokens):
        yield expand(rows, units)


def _longest(rows: TokenRows, unit: int) -> int:
    return max(len(row) for row in rows.ids[int(rows.starts[unit]) : int(rows.starts[unit + 1])])


def _padded(rows: TokenRows, units: Indices) -> int:
    index, _ = expand(rows, units)
    return len(index) * max(len(rows.ids[row]) for row in index)
