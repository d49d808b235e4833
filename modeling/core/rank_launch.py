"""A training run on several processes, started by torchrun, behind the same generator of events as on one."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from modeling.core.heads.base import Head
from modeling.core.rank_wire import Hangup, Link, event_of
from modeling.core.types import Checkpoint, Event, Plan, Recipe, Shape, Trained, TrainingData

START_SECONDS = 300.0  # until all ranks have called
_ROOT = Path(__file__).resolve().parents[2]
_KEPT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR")
_KEPT_PREFIXES = ("CUDA_", "NVIDIA_", "NCCL_", "GLOO_", "OMP_", "MKL_", "TORCH_")
SPREAD = {("classification", "lora"), ("classification", "full")}  # what can share a step among ranks


def wanted(plan: Plan) -> int:
    """How many ranks a plan runs on: its setting `ranks`, or one for each GPU of this worker; 1 on a CPU."""
    if (plan.recipe.task, plan.method) not in SPREAD:
        return 1
    asked = int(plan.settings.get("ranks", 0))
    if asked or str(plan.settings.get("device", "cpu")) == "cpu":
        return max(asked, 1)
    import torch  # here, so that a plan for a CPU does not load it

    return max(int(torch.cuda.device_count()), 1)


def spread(head: Head, plan: Plan) -> Head:
    """The head itself, or one that runs it on several ranks."""
    return head if wanted(plan) == 1 else Spread(head.task, head.method, head, wanted(plan))


@dataclass
class Spread:
    """A head whose steps are shared by ranks.

    Rank 0 yields the events, and no rank goes on before a Charge is committed.
    """

    task: str
    method: str
    head: Head
    count: int

    def plan(self, recipe: Recipe, shape: Shape, device: str) -> Plan:
        """The head's own plan."""
        return self.head.plan(recipe, shape, device)

    def train(
        self,
        plan: Plan,
        data: TrainingData,
        *,
        models_dir: Path,
        resume: Checkpoint | None,
        spent: Mapping[str, int],
    ) -> Iterator[Event]:
        """Run the plan. Rows reach the ranks by a local socket, never by disk; closing the generator ends them."""
        job = {
            "plan": plan,
            "data": data,
            "models_dir": str(models_dir),
            "resume": resume,
            "spent": dict(spent),
        }
        with _Ranks(self.count) as ranks:
            for link in ranks.links:
                link.send(job)
            yield from ranks.events()


class _Ranks:
    """torchrun, its processes and a link to each."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._folder = tempfile.TemporaryDirectory(prefix="ranks-")  # 0700: nobody else can call
        self.links: list[Link] = []

    def __enter__(self) -> _Ranks:
        path = str(Path(self._folder.name) / "job")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(self._count)
        try:
            self._process = _torchrun(self._count, path)
            found = dict(self._call() for _ in range(self._count))
            self.links = [found[rank] for rank in range(self._count)]
        except BaseException:
            self._stop()
            raise
        return self

    def _call(self) -> tuple[int, Link]:
        """The next rank that connects: its number and link."""
        until = time.monotonic() + START_SECONDS
        while not select.select([self._listener], [], [], 0.2)[0]:
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the ranks did not start")
        link = Link(self._listener.accept()[0])
        return int(link.receive()), link

    def events(self) -> Iterator[Event]:
        """Rank 0's events, each acknowledged once the consumer asks for the next one."""
        link = self.links[0]
        while True:
            try:
                event = event_of(link.receive())
            except Hangup:
                raise RuntimeError("a rank ended before the run did") from None
            yield event
            if isinstance(event, Trained):
                return
            with contextlib.suppress(Hangup):  # what ended it comes next
                link.send("go on")

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        for link in self.links:
            link.close()
        self._listener.close()
        process = getattr(self, "_process", None)
        if process is not None:
            _end(process)
        self._folder.cleanup()


def _torchrun(count: int, path: str) -> subprocess.Popen[bytes]:
    """A new session with an environment of its own: no key of the parent's reaches the ranks."""
    kept = {
        name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    return subprocess.Popen(
        [sys.executable, *command, "-m", "modeling.core.rank_main", path],
        env={"OMP_NUM_THREADS": "1", **kept, "PYTHONPATH": str(_ROOT)},
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ranks end when their link closes; torchrun ends those that hang, and the rest of its session is killed."""
    for ask, seconds in ((None, 10.0), (signal.SIGTERM, 20.0)):
        with contextlib.suppress(subprocess.TimeoutExpired):
            if ask is not None and process.poll() is None:
                process.send_signal(ask)
            process.wait(seconds)
            return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
