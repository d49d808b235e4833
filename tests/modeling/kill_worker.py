"""A training worker to be killed: forks one child per attempt, counts real gradients, and waits where it is told to.

Reads `tenant job window number truth-file` per line; prints `pid`, then `here` at the window, then `end` with a status.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import django

django.setup()

from modeling.actions import training  # noqa: E402
from modeling.core import evaluation, softmax_head  # noqa: E402
from modeling.core.types import Charge, Checkpoint  # noqa: E402
from modeling.tasks.jobs import train_job  # noqa: E402

BEFORE = {"before-checkpoint": Checkpoint}
AFTER = {"after-charge": Charge, "after-checkpoint": Checkpoint}


def say(*words: object) -> None:
    """One line to the test."""
    os.write(1, (" ".join(str(word) for word in words) + "\n").encode())


def count_gradients(truth: int, stop_at: int) -> None:
    """Write one byte for each private gradient and each release as it is taken: no ledger may be below."""
    gradient, release = softmax_head.SoftmaxHead.gradient, evaluation.release
    seen = 0

    def counted_gradient(self: Any, *args: Any, **more: Any) -> Any:
        nonlocal seen
        os.write(truth, b"g")
        result = gradient(self, *args, **more)
        seen += 1
        if seen == stop_at:
            stay()
        return result

    def counted_release(*args: Any, **more: Any) -> Any:
        os.write(truth, b"r")
        return release(*args, **more)

    softmax_head.SoftmaxHead.gradient = counted_gradient  # type: ignore[method-assign]
    evaluation.release = counted_release


def wait_at(window: str, number: int) -> None:
    """Stop the run for good at the `number`-th event of the window's kind, and say so."""
    take, seen = training._take, 0

    kind = BEFORE.get(window) or AFTER.get(window)

    def spied(attempt: Any, event: Any) -> None:
        nonlocal seen
        is_it = kind is not None and isinstance(event, kind)
        seen += is_it
        if is_it and window in BEFORE and seen == number:
            stay()
        take(attempt, event)
        if is_it and window in AFTER and seen == number:
            stay()

    training._take = spied


def stay() -> None:
    say("here")
    time.sleep(120)


def attempt(tenant_id: str, job_id: str, window: str, number: str, truth_file: str) -> None:
    """One attempt in this child."""
    in_gradient = int(number) if window == "after-gradient" else 0
    count_gradients(os.open(truth_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), in_gradient)
    wait_at(window, int(number))
    train_job(tenant_id=tenant_id, job_id=job_id)


def main() -> None:
    """Serve attempts until the test closes the pipe."""
    say("ready")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            attempt(*line.split())
            os._exit(0)
        say("pid", child)
        _pid, status = os.waitpid(child, 0)
        say("end", status)


if __name__ == "__main__":
    main()
