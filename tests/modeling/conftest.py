"""A tiny encoder in place of the real one, and rows whose class shows in their words: jobs of a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.core.tiny_text import make_base


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with a random two-layer encoder called minilm-l6."""
    folder = tmp_path_factory.mktemp("models")
    make_base(folder)
    return folder


@pytest.fixture
def tiny(tiny_models: Path, settings: Any) -> Path:
    """Jobs of this test train on the tiny encoder."""
    settings.MODELS_DIR = tiny_models
    return tiny_models


@pytest.fixture
def words_file(api: Any, acme: Any, tiny: Path) -> str:
    """A processed file of 700 short rows in three classes; its public id."""
    from tests.modeling.clinic import uploaded, words_csv

    return uploaded(api, acme, words_csv(700))


@pytest.fixture(scope="session")
def finished(tiny_models: Path, database: None) -> Any:
    """A finished private job with its receipt, card and ledger; tests only read it."""
    from tests.modeling.finished import Run

    return Run(tiny_models)
