"""A training worker to be killed or stopped: forks one child per attempt, counts real gradients, waits where told.

Reads `tenant job window number truth-file how` per line; prints `pid`, then `here` at the window, then `end` with a
status. `how` is `wait` (for a kill) or `stop` (the child stops itself with SIGSTOP, as a machine that hangs).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from typing import Any

import django

django.setup()

from modeling.actions import training  # noqa: E402
from modeling.core import evaluation, privacy, softmax_head  # noqa: E402
from modeling.core.heads import classify_lora  # noqa: E402, F401  (loaded once, before the fork)
from modeling.core.types import Charge, Checkpoint, Progress, Trained  # noqa: E402
from modeling.tasks.jobs import train_job  # noqa: E402

BEFORE = {"before-checkpoint": Checkpoint, "before-progress": Progress, "before-end": Trained}
AFTER = {"after-charge": Charge, "after-checkpoint": Checkpoint}
STEP, HEAD, RELEASE = b"g", b"s", b"r"  # what the truth file holds, one byte each
HALTS = {"after-gradient": HEAD, "after-step-gradient": STEP}


def say(*words: object) -> None:
    """One line to the test."""
    os.write(1, (" ".join(str(word) for word in words) + "\n").encode())


class Truth:
    """Writes one byte for each private gradient and each release as it is taken: no ledger may be below."""

    def __init__(self, file: str, window: str, number: int, how: str) -> None:
        self.file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.stops = {HALTS[window]: number} if window in HALTS else {}
        self.seen, self.how = Counter[bytes](), how

    def took(self, mark: bytes) -> None:
        """A composition of private rows begins."""
        os.write(self.file, mark)

    def saw(self, mark: bytes) -> None:
        """Its gradients are in memory."""
        self.seen[mark] += 1
        if self.seen[mark] == self.stops.get(mark):
            stay(self.how)


def count_gradients(truth: Truth) -> None:
    """Mark full-batch gradients of the softmax head, steps of Opacus' per-example gradients, and releases."""
    gradient, release = softmax_head.SoftmaxHead.gradient, evaluation.release
    accumulate, finish = privacy.PrivateStepper.accumulate, privacy.PrivateStepper.finish
    is_open = False

    def counted_gradient(self: Any, *args: Any, **more: Any) -> Any:
        truth.took(HEAD)
        result = gradient(self, *args, **more)
        truth.saw(HEAD)
        return result

    def counted_accumulate(self: Any, *args: Any, **more: Any) -> None:
        nonlocal is_open
        is_first, is_open = not is_open, True
        if is_first:
            truth.took(STEP)
        accumulate(self, *args, **more)
        if is_first:
            truth.saw(STEP)

    def counted_finish(self: Any, *args: Any, **more: Any) -> None:
        nonlocal is_open
        if not is_open:  # an empty batch: a step of noise alone
            truth.took(STEP)
        is_open = False
        finish(self, *args, **more)

    def counted_release(*args: Any, **more: Any) -> Any:
        truth.took(RELEASE)
        return release(*args, **more)

    softmax_head.SoftmaxHead.gradient = counted_gradient  # type: ignore[method-assign]
    privacy.PrivateStepper.accumulate = counted_accumulate  # type: ignore[method-assign]
    privacy.PrivateStepper.finish = counted_finish  # type: ignore[method-assign]
    evaluation.release = counted_release


def wait_at(window: str, number: int, how: str) -> None:
    """Halt the run at the `number`-th event of the window's kind, and say so."""
    take, seen = training._take, 0
    kind = BEFORE.get(window) or AFTER.get(window)

    def spied(attempt: Any, event: Any) -> None:
        nonlocal seen
        is_it = kind is not None and isinstance(event, kind)
        seen += is_it
        if is_it and window in BEFORE and seen == number:
            stay(how)
        take(attempt, event)
        if is_it and window in AFTER and seen == number:
            stay(how)

    training._take = spied


def stay(how: str) -> None:
    """Wait to be killed, or stop all threads of this process until somebody continues it."""
    say("here")
    if how == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        time.sleep(120)


def attempt(tenant_id: str, job_id: str, window: str, number: str, truth_file: str, how: str) -> None:
    """One attempt in this child."""
    count_gradients(Truth(truth_file, window, int(number), how))
    wait_at(window, int(number), how)
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
