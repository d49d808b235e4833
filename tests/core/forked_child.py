"""Limited children by fork, one at a time: 100,000 files need no 100,000 interpreters."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

from modeling.core.child import packages

ROOT = Path(__file__).resolve().parents[2]


class ForkServer:
    """The process that forks; `start` is for `parse_in_child`. `last` is the child that was started last."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        start = f"import os, sys; os.dup2({theirs.fileno()}, 3); sys.path.insert(0, {str(ROOT)!r}); "
        run = "import runpy; runpy.run_path(sys.argv.pop(1))"
        script = str(Path(__file__).with_name("forked_child_main.py"))
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", start + run, script, *packages()],
            pass_fds=(theirs.fileno(),),
            env={"LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        theirs.close()
        self._link = ours
        self._answers = ours.makefile("rb")
        self.last: ForkedChild | None = None

    def start(self, settings: dict[str, Any]) -> subprocess.Popen[bytes]:
        """A child with pipes, as subprocess would give it."""
        into, feed = os.pipe()
        drain, out = os.pipe()
        socket.send_fds(self._link, [json.dumps(settings).encode()], [into, out])
        os.close(into)
        os.close(out)
        self.last = ForkedChild(int(self._answers.readline()), feed, drain, self._answers)
        return cast("subprocess.Popen[bytes]", self.last)

    def close(self) -> None:
        """End the process that forks."""
        self._answers.close()
        self._link.close()
        self._process.wait(10)


class ForkedChild:
    """What parse_in_child needs of a Popen."""

    def __init__(self, pid: int, feed: int, drain: int, answers: Any) -> None:
        self.pid = pid
        self.stdin = os.fdopen(feed, "wb")
        self.stdout = os.fdopen(drain, "rb")
        self.returncode: int | None = None
        self._answers = answers

    def poll(self) -> int | None:
        """The exit status, once it is known."""
        return self.returncode

    def kill(self) -> None:
        """Kill it; it may be over already, then its pid is nobody's."""
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def wait(self) -> int:
        """The exit status."""
        if self.returncode is None:
            self.returncode = int(self._answers.readline())
        return self.returncode
