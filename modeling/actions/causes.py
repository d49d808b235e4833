"""Why an attempt was lost, in plain words: by the class of the error, never by its text, which may hold a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from django.db import DatabaseError
from django.utils.translation import gettext as _

OUT_OF_MEMORY, KILLED, LOST = "out_of_memory", "worker_killed", "worker_lost"
STORAGE, DATABASE, BUG = "storage_error", "database_error", "internal_error"
# What torch says when an allocation fails: its CPU allocator raises a plain RuntimeError.
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")
_MEMORY_CLASSES = ("OutOfMemoryError", "MemoryError", "_ArrayMemoryError")


@dataclass(frozen=True)
class Cause:
    """One lost attempt: a code for programs, and the class of the error where there was one."""

    code: str
    error: str = ""

    @property
    def words(self) -> str:
        """Half a sentence: what happened to the worker."""
        return _WORDS.get(self.code, _WORDS[BUG])() % {"error": self.error or "?"}


_WORDS: Mapping[str, Callable[[], str]] = {
    OUT_OF_MEMORY: lambda: _("its worker ran out of memory"),
    KILLED: lambda: _("its worker was killed by the system, most often because memory ran out"),
    LOST: lambda: _("its worker disappeared without a word"),
    STORAGE: lambda: _("a file or the disk could not be used (%(error)s)"),
    DATABASE: lambda: _("the database did not answer (%(error)s)"),
    BUG: lambda: _("an error inside Cloister stopped it (%(error)s)"),
}


def cause_of(error: BaseException | None) -> Cause:
    """The cause that an exception stands for; None is a worker that is simply gone."""
    if error is None:
        return Cause(LOST)
    name = type(error).__name__
    said = str(error).lower() if isinstance(error, RuntimeError) else ""
    if name in _MEMORY_CLASSES or any(words in said for words in _MEMORY_WORDS):
        return Cause(OUT_OF_MEMORY, name)
    if isinstance(error, DatabaseError):
        return Cause(DATABASE, name)
    return Cause(STORAGE if isinstance(error, OSError) else BUG, name)
