"""A public dialogue set for the chat benches: the English part of chatterbot-corpus (BSD), one short answer each."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import yaml

Talk = list[dict[str, str]]
TRAIN, HELD_OUT = 5_000, 200


def dialogues() -> tuple[list[Talk], list[Talk]]:
    """(training, held-out) conversations, split by question with a seed: no question is on both sides.

    The corpus has about 900 English conversations: the 700 or so that are left to train on are repeated until they
    stand for 5,000 people. The recipes were tuned on the first 200 of the shuffled questions' conversations; the next
    200 are held out here.
    """
    groups: dict[str, list[Talk]] = {}
    for turns in sorted(_read()):
        roles = ("user", "assistant")
        talk = [{"role": roles[at % 2], "content": text} for at, text in enumerate(turns)]
        groups.setdefault(turns[0].lower(), []).append(talk)
    questions = sorted(groups)
    random.Random(20_260_301).shuffle(questions)
    tuned_on: list[Talk] = []
    held_out: list[Talk] = []
    rest: list[Talk] = []
    for question in questions:
        part = tuned_on if len(tuned_on) < HELD_OUT else held_out if len(held_out) < HELD_OUT else rest
        part.extend(groups[question])
    train = [*rest, *tuned_on]
    return [train[person % len(train)] for person in range(TRAIN)], held_out


def _read() -> set[tuple[str, ...]]:
    """Different conversations of an even number of turns, whose texts are not empty."""
    spec = importlib.util.find_spec("chatterbot_corpus")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("Install the bench extra first: make install-bench.")
    folder = Path(next(iter(spec.submodule_search_locations))) / "data" / "english"
    found: set[tuple[str, ...]] = set()
    for file in sorted(folder.glob("*.yml")):
        for turns in yaml.safe_load(file.read_text(encoding="utf-8")).get("conversations", []):
            texts = [str(text).strip() for text in turns if text is not None]
            texts = texts[: len(texts) // 2 * 2]
            if texts and all(texts):
                found.add(tuple(texts))
    return found
