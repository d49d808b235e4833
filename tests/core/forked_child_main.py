"""A small process that forks the limited child for each file: the child's own code and limits, without its start."""

from __future__ import annotations

import json
import os
import socket
import sys


def main() -> None:
    """Descriptor 3 is a socket: each request brings settings and two pipes; the answers are the pid and its status."""
    sys.path.extend(sys.argv[1:])
    import msgpack  # noqa: F401 - as the child does, before the doors are closed

    from modeling.core import (  # noqa: F401  # noqa: F401
        child_main,
        columns,
        tables,
        tables_csv,
        tables_fast,
        tables_jsonl,
        tables_parquet,
        text_encodings,
    )

    tables_fast.prepare()
    text_encodings.prepare("")
    link = socket.socket(fileno=3)
    while True:
        request, pipes, _, _ = socket.recv_fds(link, 1 << 16, 2)
        if not request:
            return
        settings = json.loads(request)
        pid = os.fork()
        if pid == 0:
            try:
                os.dup2(pipes[0], 0)
                os.dup2(pipes[1], 1)
                child_main.close_doors(settings["limits"])
                child_main.work(settings["reading"], b"", settings["size"])
            except BaseException:
                os._exit(1)
            os._exit(0)
        for pipe in pipes:
            os.close(pipe)
        link.send(b"%d\n" % pid)
        link.send(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


main()
