"""The clinic demo rows with their embeddings, computed once and kept beside the other bench results."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from modeling.core import bases
from modeling.core.encoder import Encoder
from modeling.core.types import Array
from modeling.packs.samples.clinic import clinic_rows

DATA_DIR = Path(__file__).resolve().parents[2] / ".data"


@dataclass(frozen=True)
class ClinicRows:
    """Texts, chapter indices and embeddings [n, 384], and the chapter names with theirs [K, 384]."""

    texts: list[str]
    labels: npt.NDArray[np.int64]
    features: Array
    names: list[str]
    name_features: Array


def load() -> ClinicRows:
    """The rows, embedded on the first call (about half a minute on one core)."""
    rows = clinic_rows()
    texts = [text for text, _ in rows]
    names = sorted({name for _, name in rows})
    digest = hashlib.sha256("\n".join(texts + names).encode()).hexdigest()[:12]
    cache = DATA_DIR / "bench" / f"clinic-{digest}.npz"
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        encoder = Encoder(bases.path(DATA_DIR / "models", "minilm-l6"))
        started = time.process_time()
        features = encoder.embed_all(texts)
        print(f"embedded {len(texts):,} texts in {time.process_time() - started:.1f} s of CPU time")
        np.savez(cache, features=features, names=encoder.embed_all(names))
    stored = np.load(cache)
    labels = np.array([names.index(name) for _, name in rows])
    return ClinicRows(texts, labels, stored["features"], names, stored["names"])
