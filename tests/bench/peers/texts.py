"""The texts of the comparison: public descriptions put together to lengths as people write, a few words to a page."""

from __future__ import annotations

import random

COUNT = 640
MEDIAN_WORDS, SPREAD, MOST_WORDS = 12, 0.9, 150


def texts(seed: int = 7) -> list[str]:
    """640 texts; words from ICD-10-CM descriptions, log-normal lengths, 3 to 150 words."""
    import simple_icd_10_cm as icd

    chance = random.Random(seed)
    codes = icd.get_all_codes()
    found = []
    for _ in range(COUNT):
        wanted = min(MOST_WORDS, max(3, round(MEDIAN_WORDS * 2.718 ** chance.gauss(0, SPREAD))))
        words: list[str] = []
        while len(words) < wanted:
            words += icd.get_description(chance.choice(codes)).split()
        found.append(" ".join(words[:wanted]))
    return found
