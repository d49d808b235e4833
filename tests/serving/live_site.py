"""The whole site under uvicorn in a thread, before an engine on tiny random models: for clients over real HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from django.conf import settings
from django.db import connections

from saas.processes import free_port
from tests.serving.batching import make_encoder
from tests.serving.made import EngineProcess
from tests.serving.tiny_talks import write_tiny


@contextmanager
def tiny_engine(folder: Path) -> Iterator[EngineProcess]:
    """An engine with a random encoder and a random chat model; both answer in milliseconds."""
    models = folder / "models"
    make_encoder(models)
    write_tiny(models)
    process = EngineProcess(folder / "engine.sock", models=models)
    try:
        process.wait_for("minilm-l6", seconds=30)
        yield process
    finally:
        process.stop()


@contextmanager
def live_site(engine: Path) -> Iterator[str]:
    """The site's address; it uses this run's database and the engine at that socket."""
    from saas.asgi import application

    port, before = free_port(), settings.ENGINE_SOCKET
    settings.ENGINE_SOCKET = engine
    config = uvicorn.Config(application, host="127.0.0.1", port=port, log_level="warning", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        assert server.started
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(15)
        settings.ENGINE_SOCKET = before
        connections.close_all()
