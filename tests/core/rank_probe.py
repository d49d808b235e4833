"""What one rank finds out, as files for the test: `torchrun … -m tests.core.rank_probe MODEL_FOLDER OUT`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed
from safetensors.torch import save_file

from modeling.core import ranks
from modeling.core.encoder import Tokens
from modeling.core.memory import micro_batches
from modeling.core.noise import NoiseSource
from modeling.core.privacy import GhostStepper, PrivateStepper
from modeling.core.sampling import PoissonSampler
from tests.core import test_ghost as ghost
from tests.core.tiny_text import make_data

SIGMA, CLIP, BATCH, SIZE = 2.0, 0.5, 10.0, 200
UNITS, RATE = 2000, 0.5


def clipped(folder: Path, rank: int) -> dict[str, torch.Tensor]:
    """The step over this rank's units among CHOSEN: sums are added over ranks inside."""
    rows = ghost.make_rows(Tokens(folder)(make_data(24).texts), ghost.UNEVEN)
    model = ghost.make_model(folder, rank=rank)
    with torch.no_grad():  # what differs between ranks must not matter: rank 0's values count
        for value in ghost.trained(model).values():
            value.add_(0.1 * ranks.rank())
    optimizer = torch.optim.SGD(ghost.trained(model).values(), lr=1.0)
    kind = PrivateStepper if rank else GhostStepper
    stepper = kind(model, optimizer, sigma=0.0, clip=0.05, expected_batch=1.0, source=NoiseSource())
    before = {name: value.detach().clone() for name, value in ghost.trained(model).items()}
    mine = np.array(ghost.CHOSEN)[ranks.rank() :: ranks.size()]
    for index, units in micro_batches(rows, mine, batch_tokens=60):
        stepper.accumulate(ghost.losses_of(stepper.model, rows, index), torch.from_numpy(units))
    stepper.finish()
    return {name: before[name] - value.detach() for name, value in ghost.trained(model).items()}


def noise(kind: type[PrivateStepper] | type[GhostStepper]) -> torch.Tensor:
    """What a step of noise alone moves a layer by."""
    layer = torch.nn.Linear(SIZE, SIZE, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    stepper = kind(layer, optimizer, sigma=SIGMA, clip=CLIP, expected_batch=BATCH, source=NoiseSource())
    before = layer.weight.detach().clone()
    stepper.finish()
    return before - layer.weight.detach()


def main(folder: Path, out: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    found = {"noise.lora": noise(PrivateStepper), "noise.full": noise(GhostStepper)}
    for name, rank in (("lora", 4), ("full", 0)):
        found |= {f"sum.{name}.{key}": value for key, value in clipped(folder, rank).items()}
    sampler = PoissonSampler(UNITS, RATE)
    found["mask"] = torch.from_numpy(np.isin(np.arange(UNITS), sampler.draw()))
    save_file({key: value.contiguous() for key, value in found.items()}, out / f"{ranks.rank()}.safetensors")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
