"""The engine process: owns weights, adapters and batches, answers on a socket, knows no database and no Django.

python -m modeling.serving.engine --socket PATH --models DIR [--threads N] [--bases NAME,…]
python -m modeling.serving.engine --listen tls://0.0.0.0:7300 --cert FILE --key FILE --ca FILE --models DIR
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

from modeling.serving.addresses import BadAddress, TlsAddress, parse_address
from modeling.serving.connections import Hub
from modeling.serving.runners import KINDS, Runners
from modeling.serving.tls import BadCertificates, server_credentials

log = logging.getLogger("cloister.engine")

WARM_BASE = "minilm-l6"  # the others come at first use, to keep idle memory low
GRACE_SECONDS = 2.0
HANDSHAKE_SECONDS = 5.0
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


async def _listen(hub: Hub, options: argparse.Namespace) -> list[asyncio.Server]:
    """Servers on the socket and the address asked for; raises CannotStart."""
    servers = []
    if options.socket is not None:
        before = os.umask(0o177)  # the socket is its owner's alone
        try:
            servers.append(await asyncio.start_unix_server(hub.accept, options.socket))
        finally:
            os.umask(before)
    if options.listen is not None:
        place: TlsAddress = options.listen
        try:
            credentials = server_credentials(options.cert, options.key, options.ca)
            servers.append(
                await asyncio.start_server(
                    hub.accept,
                    place.host,
                    place.port,
                    ssl=credentials,
                    ssl_handshake_timeout=HANDSHAKE_SECONDS,
                )
            )
        except (BadCertificates, OSError) as error:
            raise CannotStart(f"The engine cannot listen on {place}: {error}") from error
    return servers


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is under way for a moment; raises CannotStart."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runners = Runners(options.models, options.bases)
    hub = Hub(runners)
    servers = await _listen(hub, options)
    where = " and ".join(str(place) for place in (options.socket, options.listen) if place)
    log.info("engine %d listens on %s, bases %s", os.getpid(), where, ", ".join(options.bases))
    runners.warm(WARM_BASE if WARM_BASE in options.bases else options.bases[0])
    await stop.wait()
    for server in servers:
        server.close()
    await hub.drain(GRACE_SECONDS)
    await runners.close()
    log.info("engine %d stopped", os.getpid())


def _tls_address(text: str) -> TlsAddress:
    try:
        address = parse_address(text)
    except BadAddress as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not isinstance(address, TlsAddress):
        raise argparse.ArgumentTypeError("an engine listens on tls://host:port, never on plain TCP")
    return address


def _bases(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or any(name not in KINDS for name in names):
        raise argparse.ArgumentTypeError(f"choose from {', '.join(KINDS)}")
    return names


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", type=Path, help="a unix socket to listen on")
    parser.add_argument("--listen", type=_tls_address, help="tls://host:port for gateways on other hosts")
    for name, words in (("cert", "certificate"), ("key", "its key"), ("ca", "authority of the gateways")):
        parser.add_argument(f"--{name}", type=Path, help=f"{words}, PEM; for --listen")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--bases", type=_bases, default=tuple(KINDS), help="serve these alone")
    parser.add_argument("--threads", type=int, default=1, help="torch threads per base")
    options = parser.parse_args()
    if options.socket is None and options.listen is None:
        parser.error("--socket, --listen or both")
    return options


def main() -> int:
    """Parse arguments and run; 1 with a sentence when the engine cannot start."""
    options = _options()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    die_with_parent()
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    torch.set_grad_enabled(False)
    sys.setswitchinterval(0.001)  # the event loop should not wait 5 ms for a compute thread
    try:
        if options.socket is not None:
            clear_stale(options.socket)
            options.socket.parent.mkdir(parents=True, exist_ok=True)
        asyncio.run(serve(options))
    except CannotStart as reason:
        log.error("%s", reason)
        return 1
    if options.socket is not None:
        options.socket.unlink(missing_ok=True)
    os._exit(0)  # compute threads may still be inside a long kernel: nothing they hold outlives the process


if __name__ == "__main__":
    sys.exit(main())
