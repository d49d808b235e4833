"""`python -m billing.standin --hook URL --secret whsec_… [--port 12111] [--file state.json]`: runs until stopped."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from billing.standin.hooks import Sender
from billing.standin.server import Server
from billing.standin.state import State


def main() -> None:
    """Serve on loopback only."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=12111)
    parser.add_argument("--hook", required=True, help="where webhooks go")
    parser.add_argument("--secret", required=True, help="what webhooks are signed with")
    parser.add_argument("--file", type=Path, default=None, help="where the state is kept")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = Server(("127.0.0.1", options.port), State(options.file), Sender(options.hook, options.secret))
    server.serve_forever()


if __name__ == "__main__":
    main()
