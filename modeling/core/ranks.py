"""What a training step needs to know of its fellow processes (torch.distributed); alone, every call does nothing."""

from __future__ import annotations

import torch
import torch.distributed
from torch import nn


def size() -> int:
    """How many ranks train together; 1 outside a process group."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def rank() -> int:
    """This process's number; 0 makes the noise, the evaluations and the events."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def align(module: nn.Module) -> None:
    """Give every rank rank 0's parameters."""
    if size() > 1:
        with torch.no_grad():
            for parameter in module.parameters():
                torch.distributed.broadcast(parameter.data, 0)


def add_up(tensor: torch.Tensor) -> None:
    """Replace a tensor by its sum over ranks, in place."""
    if size() > 1:
        torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.SUM)


def wait() -> None:
    """Return once every rank is here."""
    if size() > 1:
        torch.distributed.barrier()
