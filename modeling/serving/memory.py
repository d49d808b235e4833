"""Large tables of zeros that take memory only where they were written."""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Sequence

import torch


def lazy_zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu") -> torch.Tensor:
    """Zeros [shape]; on the CPU as pages that come with their first write.

    torch.zeros would touch them all, huge pages would bring in neighbours with the first row of one, and pages of a
    shared mapping would come with the first read.
    """
    if torch.device(device).type != "cpu":
        return torch.zeros(tuple(shape), dtype=dtype, device=device)
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if sys.platform == "linux":
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(tuple(shape))
