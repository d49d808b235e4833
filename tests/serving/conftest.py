"""Serving's fixtures: an engine as a process of its own, and sealed artefacts for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.serving.made import Artifacts, EngineProcess


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine with the real weights, ready to classify."""
    process = EngineProcess(tmp_path_factory.mktemp("engine") / "engine.sock")
    try:
        process.wait_for("minilm-l6")
        yield process
    finally:
        process.stop()


@pytest.fixture
def artifacts(tmp_path: Path) -> Any:
    """Makes sealed artefacts in this test's folder."""
    return Artifacts(tmp_path)


@pytest.fixture
def official(people: Any, acme: Any, settings: Any, engine: EngineProcess) -> openai.AsyncOpenAI:
    """The official client, unmodified, with a key of acme's that may predict; it does not try again."""
    from modeling.serving.gateway import application

    settings.ENGINE_SOCKET = engine.socket
    transport = httpx.ASGITransport(app=application)
    return openai.AsyncOpenAI(
        api_key=people.key(acme, "predict"),
        base_url="http://testserver/v1",
        http_client=httpx.AsyncClient(transport=transport),
        max_retries=0,
    )
