"""Which device a job runs on, by the name in its plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modeling.core.types import CannotTrain

if TYPE_CHECKING:
    import torch


def choose(name: str = "cpu") -> torch.device:
    """ "cpu", "cuda" or "auto" as a device; raises CannotTrain when a GPU is asked for and there is none."""
    import torch  # here, so that planning a job in the web process does not load it

    has_gpu = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if has_gpu else "cpu")
    if name.startswith("cuda") and not has_gpu:
        raise CannotTrain("This job asks for a GPU and this worker has none.", code="no_gpu")
    return torch.device(name)
