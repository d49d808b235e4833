"""The engine process: owns weights, adapters and batches, answers on a unix socket, knows no database and no Django.

python -m modeling.serving.engine --socket PATH --models DIR [--threads N]
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import logging
import os
import signal
import socket
import stat
import sys
from pathlib import Path

import torch

from modeling.serving.connections import Hub
from modeling.serving.runners import KINDS, Runners

log = logging.getLogger("cloister.engine")

WARM_BASE = "minilm-l6"  # the others come at first use, to keep idle memory low
GRACE_SECONDS = 2.0
_PR_SET_PDEATHSIG = 1
_MAX_SOCKET_PATH = 107


class CannotStart(Exception):
    """The engine cannot take its socket; says why and what to do."""


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent ends (Linux); leave at once if it has ended already."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


def clear_stale(path: Path) -> None:
    """Remove a socket that nobody listens on; raises CannotStart if someone does or if it is no socket."""
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise CannotStart(
            f"The socket path is longer than {_MAX_SOCKET_PATH} bytes: choose a shorter DATA_DIR."
        )
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise CannotStart(f"{path} exists and is not a socket: move it away.")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            path.unlink()
            return
    raise CannotStart(f"Another engine already listens on {path}: stop it first.")


async def serve(path: Path, models_dir: Path) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is under way for a moment and remove the socket."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runners = Runners(models_dir)
    hub = Hub(runners)
    before = os.umask(0o177)  # the socket is its owner's alone
    try:
        server = await asyncio.start_unix_server(hub.accept, path)
    finally:
        os.umask(before)
    log.info("engine %d listens on %s, bases %s", os.getpid(), path, ", ".join(KINDS))
    runners.warm(WARM_BASE)
    await stop.wait()
    server.close()
    await hub.drain(GRACE_SECONDS)
    await runners.close()
    log.info("engine %d stopped", os.getpid())


def main() -> int:
    """Parse arguments and run; 1 with a sentence when the engine cannot start."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1, help="torch threads per base")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    die_with_parent()
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    torch.set_grad_enabled(False)
    sys.setswitchinterval(0.001)  # the event loop should not wait 5 ms for a compute thread
    path: Path = options.socket
    try:
        clear_stale(path)
    except CannotStart as reason:
        log.error("%s", reason)
        return 1
    path.parent.mkdir(parents=True, exist_ok=True)
    asyncio.run(serve(path, options.models))
    path.unlink(missing_ok=True)
    os._exit(0)  # compute threads may still be inside a long kernel: nothing they hold outlives the process


if __name__ == "__main__":
    sys.exit(main())
