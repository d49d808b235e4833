"""Where sealed bytes lie, by key: a folder on disk or a bucket of S3. Knows no Django and no keys that open anything.

A key is `{tenant}/{object}/{version}`. A writer's bytes are invisible until `finish()`, whole from then on, and never
change. Deleting what is not there does nothing.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, cast

from saas.lib import env

if TYPE_CHECKING:
    from typing_extensions import Buffer

S3_SCHEME: Final = "s3://"
_KEY: Final = re.compile(r"[0-9A-Za-z_-]+(/[0-9A-Za-z_-]+)*")


class ObjectMissing(FileNotFoundError):
    """No object lies under this key."""


class StoreUnavailable(OSError):
    """The store refused, or did not answer in time; the message says which, never what was in the object."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which store: `file:/folder` or `s3://bucket/prefix`; the rest is for S3 and its kin. Credentials are not here."""

    url: str
    endpoint: str = ""  # "": AWS's own
    region: str = ""
    path_style: bool = False

    @classmethod
    def from_environment(cls, folder: Path | None = None) -> Place:
        """OBJECT_STORE, S3_ENDPOINT, S3_REGION, S3_PATH_STYLE; a folder where OBJECT_STORE is not set."""
        url = env.text("OBJECT_STORE", f"file:{folder}" if folder is not None else "")
        if not url.startswith((S3_SCHEME, "file:/")) and url:
            raise env.BadSetting("OBJECT_STORE must be s3://bucket/prefix or file:/folder.")
        return cls(url.rstrip("/"), env.text("S3_ENDPOINT"), env.text("S3_REGION"), env.flag("S3_PATH_STYLE"))


@dataclass(frozen=True, slots=True)
class Stored:
    """One whole object: ciphertext bytes, and when it was finished (seconds since 1970)."""

    key: str
    size_bytes: int
    modified: float


@dataclass(frozen=True, slots=True)
class Draft:
    """Bytes of a writer that has not finished; `token` names the draft to `discard`."""

    key: str
    token: str
    touched: float  # when bytes last came, seconds since 1970


class Sink(Protocol):
    """Takes an object's bytes. Without `finish()` there is no object."""

    def write(self, data: Buffer, /) -> int:
        """Take bytes; returns how many, perhaps fewer than given."""

    def finish(self) -> int:
        """Make the object visible and durable; returns its size in bytes."""

    def abort(self) -> None:
        """Forget what was written; harmless after `finish()` and a second time."""


class ObjectStore(Protocol):
    """What both stores do. Raises ObjectMissing, StoreUnavailable and other OSErrors."""

    def create(self, key: str) -> Sink:
        """Begin an object."""

    def open(self, key: str) -> BinaryIO:
        """A readable, seekable view of an object's bytes."""

    def stat(self, key: str) -> Stored | None:
        """What lies under a key, or None."""

    def delete(self, key: str) -> None:
        """Remove an object."""

    def delete_all(self, prefix: str) -> None:
        """Remove every object and draft under a prefix such as a tenant's."""

    def list(self, prefix: str) -> Iterator[Stored]:
        """Objects under a prefix, sorted by key, a page at a time."""

    def drafts(self, prefix: str) -> Iterator[Draft]:
        """What unfinished writers left under a prefix."""

    def discard(self, draft: Draft) -> None:
        """Remove a draft."""

    def folders(self) -> Iterator[str]:
        """The first parts of all keys, each once."""

    def location(self, key: str) -> str:
        """Where `open_location` of another process finds the object: a path, or s3://bucket/prefix/key."""


def store_at(place: Place) -> ObjectStore:
    """The store of a place; the same one again for this process."""
    return _store_at(place, os.getpid())  # connections are not shared with a forked parent


@lru_cache(maxsize=8)
def _store_at(place: Place, _process: int) -> ObjectStore:
    if not place.url.startswith(S3_SCHEME):
        return DiskStore(Path(place.url.removeprefix("file:")))
    from saas.lib.object_store_s3 import S3Store  # boto3 is loaded where S3 is used

    return S3Store(place)


def open_location(location: str) -> BinaryIO:
    """Open what `location()` named in another process; in S3 only what lies in the store of this environment.

    Raises ObjectMissing, StoreUnavailable and other OSErrors.
    """
    if not location.startswith(S3_SCHEME):
        return _open_file(Path(location))
    place = Place.from_environment()
    key = location.removeprefix(place.url + "/")
    if not place.url or key == location:
        raise ObjectMissing("The object does not lie in the object store that this process was given.")
    return store_at(place).open(key)


def checked(key: str) -> str:
    """The key, if it can be one; raises ValueError."""
    if _KEY.fullmatch(key) is None:
        raise ValueError("Not a key of the object store.")
    return key


class DiskStore:
    """Objects as files: written beside their place and moved there when they are whole and on the disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def create(self, key: str) -> Sink:
        """Begin a draft beside the place."""
        return _DiskSink(self._path(key))

    def open(self, key: str) -> BinaryIO:
        """The unbuffered file."""
        return _open_file(self._path(key))

    def stat(self, key: str) -> Stored | None:
        """From the file's own times and size."""
        try:
            found = self._path(key).stat()
        except FileNotFoundError:
            return None
        return Stored(key, found.st_size, found.st_mtime)

    def delete(self, key: str) -> None:
        """Unlink the file, and its folder when that is empty."""
        _remove(self._path(key))

    def delete_all(self, prefix: str) -> None:
        """The whole folder."""
        shutil.rmtree(self.root / checked(prefix), ignore_errors=True)

    def list(self, prefix: str) -> Iterator[Stored]:
        """Whole files, folder by folder."""
        for file in _files(self.root / checked(prefix)):
            key = file.relative_to(self.root).as_posix()
            found = self.stat(key) if _KEY.fullmatch(key) else None  # a draft, or no file of ours
            if found is not None:
                yield found

    def drafts(self, prefix: str) -> Iterator[Draft]:
        """Hidden files: those of writers at work, and of writers that died."""
        for file in _files(self.root / checked(prefix)):
            if file.name.startswith("."):
                key = file.with_name(file.name.split(".")[1]).relative_to(self.root).as_posix()
                try:
                    yield Draft(key, str(file), file.stat().st_mtime)
                except FileNotFoundError:
                    continue  # it was finished this moment

    def discard(self, draft: Draft) -> None:
        """Unlink the file."""
        _remove(Path(draft.token))

    def folders(self) -> Iterator[str]:
        """The folders of the root."""
        yield from sorted(_names(self.root))

    def location(self, key: str) -> str:
        """The path."""
        return str(self._path(key))

    def _path(self, key: str) -> Path:
        return self.root / checked(key)


class _DiskSink:
    def __init__(self, file: Path) -> None:
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        self._draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
        self._sink = self._draft.open("xb", buffering=0)

    def write(self, data: Buffer, /) -> int:
        return self._sink.write(data)

    def finish(self) -> int:
        handle = self._sink.fileno()
        os.fsync(handle)
        size = os.fstat(handle).st_size
        self._sink.close()
        self._draft.rename(self._file)
        _sync_folder(self._file.parent)
        return size

    def abort(self) -> None:
        self._sink.close()
        if self._draft.exists():
            _remove(self._draft)


def _open_file(file: Path) -> BinaryIO:
    try:
        return cast(BinaryIO, file.open("rb", buffering=0))
    except FileNotFoundError:
        raise ObjectMissing("No object lies there.") from None


def _names(folder: Path) -> list[str]:
    try:
        return [one.name for one in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _files(folder: Path) -> Iterator[Path]:
    """Files below a folder in the order of their keys."""
    for name in sorted(_names(folder)):
        one = folder / name
        if one.is_dir():
            yield from _files(one)
        else:
            yield one


def _sync_folder(folder: Path) -> None:
    """Make a rename durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(file: Path) -> None:
    """Unlink a file and its folder when that is empty."""
    file.unlink(missing_ok=True)
    if file.parent.exists() and not any(file.parent.iterdir()):
        file.parent.rmdir()
