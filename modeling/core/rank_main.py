"""One rank of a training run: `torchrun … -m modeling.core.rank_main SOCKET`, called by rank_launch."""

from __future__ import annotations

import os
import socket
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed

from modeling.core import heads, ranks
from modeling.core.device import choose
from modeling.core.rank_wire import Hangup, Link, error_message, event_message, job_of
from modeling.core.types import Charge, CoreError

PATIENCE = timedelta(days=2)  # a rank waits while rank 0's charge is committed, which may be a long pause


def main(path: str) -> int:
    """Take the job, train in step with the other ranks, and hand rank 0's events to the parent one by one."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    link = Link(connection)
    link.send(int(os.environ["RANK"]))
    job = link.receive()
    plan, data, resume = job_of(job)
    device = choose(str(plan.settings["device"]))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    head = heads.load(plan.recipe.task, plan.method, base=plan.recipe.base)
    try:
        for event in head.train(
            plan, data, models_dir=Path(job["models_dir"]), resume=resume, spent=job["spent"]
        ):
            if ranks.rank() == 0:
                link.send(event_message(event))
                link.receive()
            if isinstance(event, Charge):
                ranks.wait()  # for rank 0, which waits until the charge is committed
    except CoreError as error:
        if ranks.rank() == 0:
            link.send(error_message(error))
    except Hangup:
        return 0  # nobody listens any more
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
