"""Whether this worker was asked to stop: set in the worker's parent, seen by its forked children."""

from __future__ import annotations

import multiprocessing

# Made before the fork, so that parent and children share it.
_asked = multiprocessing.get_context("fork").Event()


def ask() -> None:
    """Ask every task of this worker to save its place, give its work back, and return."""
    _asked.set()


def is_asked() -> bool:
    """Whether to stop at the next safe point; cheap enough for every training step."""
    return _asked.is_set()
