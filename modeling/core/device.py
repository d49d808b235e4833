"""Which device a job runs on, by the name in its plan, and in which number format its layers compute."""

from __future__ import annotations

import os
import time
from functools import lru_cache
from typing import TYPE_CHECKING

from modeling.core.types import CannotTrain

if TYPE_CHECKING:
    import torch

_FASTER = 1.2  # bfloat16 is used on a CPU that is this much faster in it, as measured there and then


def choose(name: str = "cpu") -> torch.device:
    """ "cpu", "cuda" or "auto" as a device; raises CannotTrain when a GPU is asked for and there is none.

    Under torchrun each rank has the GPU of its own number.
    """
    import torch  # here, so that planning a job in the web process does not load it

    has_gpu = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if has_gpu else "cpu"
    if name.startswith("cuda") and not has_gpu:
        raise CannotTrain("This job asks for a GPU and this worker has none.", code="no_gpu")
    local = os.environ.get("LOCAL_RANK", "")
    return torch.device("cuda", int(local)) if name == "cuda" and local else torch.device(name)


@lru_cache(maxsize=4)
def training_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU that has it, and on a CPU where a layer's products are faster in it; else float32."""
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.float32  # it would be emulated: not worth the measurement
    plain, short = _product_seconds(torch.float32), _product_seconds(torch.bfloat16)
    return torch.bfloat16 if plain > _FASTER * short else torch.float32


def _product_seconds(dtype: torch.dtype) -> float:
    """CPU seconds of the products of one encoder layer's widest linear, the best of three."""
    import torch

    given = torch.ones(1024, 384, dtype=dtype)
    weight = torch.ones(1536, 384, dtype=dtype)
    found = []
    with torch.inference_mode():
        for _ in range(4):
            started = time.thread_time()
            torch.mm(torch.mm(given, weight.t()), weight)
            found.append(time.thread_time() - started)
    return min(found[1:])
