"""Objects in a bucket of S3 or its kin: multipart writing in bounded memory, ranged reading with a little read-ahead.

Credentials come the way AWS's tools find them (environment, profile, role). What the bucket needs is in the README.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from saas.lib.object_store import (
    S3_SCHEME,
    Draft,
    ObjectMissing,
    Place,
    Sink,
    Stored,
    StoreUnavailable,
    checked,
)
from saas.lib.positioned import Positioned

if TYPE_CHECKING:
    from typing_extensions import Buffer

MIB: Final = 1 << 20
PART_BYTES: Final = 8 * MIB
# A bucket takes 10,000 parts: they grow on the way, to 157 GiB in all, and never past 32 MiB of memory.
_GROWTH: Final = ((4_000, PART_BYTES), (8_000, 2 * PART_BYTES), (10_000, 4 * PART_BYTES))
_FIRST_READ: Final = MIB
_LEAST_READ: Final = MIB // 2
_MOST_READ: Final = 8 * MIB
_ATTEMPTS: Final = 4
_MISSING: Final = frozenset({"404", "NoSuchKey", "NotFound"})
log = logging.getLogger("cloister.objects")
T = TypeVar("T")


class S3Store:
    """One bucket under one prefix."""

    def __init__(self, place: Place) -> None:
        self._bucket, _, prefix = place.url.removeprefix(S3_SCHEME).partition("/")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._url = place.url
        self._client = _client(place.endpoint, place.region, place.path_style, os.getpid())

    def create(self, key: str) -> Sink:
        """Nothing is sent before a part is full."""
        return _S3Sink(self, checked(key))

    def open(self, key: str) -> BinaryIO:
        """One request brings the size and the first mebibyte."""
        return cast(BinaryIO, _S3Reader(self, checked(key)))

    def stat(self, key: str) -> Stored | None:
        """From the object's head."""
        try:
            head = self.ask("head_object", key=checked(key))
        except ObjectMissing:
            return None
        return Stored(key, head["ContentLength"], head["LastModified"].timestamp())

    def delete(self, key: str) -> None:
        """One request; a bucket with versions keeps ciphertext whose key is gone."""
        self.ask("delete_object", key=checked(key))

    def delete_all(self, prefix: str) -> None:
        """A page of a thousand at a time."""
        for page in self._pages("list_objects_v2", Prefix=self._under(prefix)):
            keys = [{"Key": found["Key"]} for found in page.get("Contents", [])]
            if keys:
                answer = self.ask("delete_objects", Delete={"Objects": keys, "Quiet": True})
                if answer.get("Errors"):
                    raise StoreUnavailable(f"The bucket kept {len(answer['Errors'])} objects.")
        for draft in self.drafts(prefix):
            self.discard(draft)

    def list(self, prefix: str) -> Iterator[Stored]:
        """In the bucket's order, which is that of the keys."""
        for page in self._pages("list_objects_v2", Prefix=self._under(prefix)):
            for found in page.get("Contents", []):
                yield Stored(self._key(found["Key"]), found["Size"], found["LastModified"].timestamp())

    def drafts(self, prefix: str) -> Iterator[Draft]:
        """Multipart uploads that were neither completed nor aborted."""
        for page in self._pages("list_multipart_uploads", Prefix=self._under(prefix)):
            for found in page.get("Uploads", []):
                parts = self._pages("list_parts", Key=found["Key"], UploadId=found["UploadId"])
                try:
                    times = [part["LastModified"] for one in parts for part in one.get("Parts", [])]
                except ObjectMissing:
                    continue  # it was finished this moment
                touched = max(times, default=found["Initiated"])
                yield Draft(self._key(found["Key"]), found["UploadId"], touched.timestamp())

    def discard(self, draft: Draft) -> None:
        """Abort the multipart upload; its parts go."""
        try:
            self.ask("abort_multipart_upload", key=draft.key, UploadId=draft.token)
        except ObjectMissing:
            log.info("a multipart upload ended before it was swept")

    def folders(self) -> Iterator[str]:
        """The common prefixes."""
        for page in self._pages("list_objects_v2", Prefix=self._prefix, Delimiter="/"):
            for found in page.get("CommonPrefixes", []):
                yield self._key(found["Prefix"]).rstrip("/")

    def location(self, key: str) -> str:
        """s3://bucket/prefix/key."""
        return f"{self._url}/{checked(key)}"

    def ask(self, operation: str, *, key: str = "", **more: Any) -> Any:
        """One call with the bucket and the full key filled in, retried by the client. Raises OSErrors only."""
        if key:
            more["Key"] = self._prefix + key
        return answered(lambda: getattr(self._client, operation)(Bucket=self._bucket, **more))

    def _pages(self, operation: str, **more: Any) -> Iterator[Any]:
        pages = iter(self._client.get_paginator(operation).paginate(Bucket=self._bucket, **more))
        while (page := answered(lambda: next(pages, None))) is not None:
            yield page

    def _under(self, prefix: str) -> str:
        return f"{self._prefix}{checked(prefix)}/"

    def _key(self, full: str) -> str:
        return full.removeprefix(self._prefix)


@lru_cache(maxsize=4)
def _client(endpoint: str, region: str, path_style: bool, _process: int) -> Any:
    """A client of this process; safe among threads."""
    style = {"addressing_style": "path"} if path_style else {}
    config = Config(
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=16,
        retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
        # Every body is signed with its SHA-256, so the checksums that not all of S3's kin know are not needed.
        s3={"payload_signing_enabled": True, **style},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    session = boto3.Session()
    named = region or session.region_name or "us-east-1"
    return session.client("s3", endpoint_url=endpoint or None, region_name=named, config=config)


def answered(call: Callable[[], T]) -> T:
    """The answer of a call; raises ObjectMissing or StoreUnavailable in place of the library's errors."""
    try:
        return call()
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _MISSING or code == "NoSuchUpload":
            raise ObjectMissing(f"The bucket answers {code}.") from None
        raise StoreUnavailable(f"The bucket answers {code or 'an error'}.") from error
    except BotoCoreError as error:
        raise StoreUnavailable(f"The bucket does not answer: {type(error).__name__}.") from error


class _S3Sink:
    """Holds one part; what fits into one is a single request."""

    def __init__(self, store: S3Store, key: str) -> None:
        self._store, self._key = store, key
        self._held = bytearray()
        self._parts: list[dict[str, Any]] = []
        self._upload = ""
        self._size = 0
        self._is_over = False

    def write(self, data: Buffer, /) -> int:
        if self._is_over:
            raise ValueError("The object is finished.")
        view = memoryview(data).cast("B")
        taken = 0
        while taken < len(view):
            room = self._part_bytes() - len(self._held)
            piece = view[taken : taken + room]
            self._held += piece
            taken += len(piece)
            if len(piece) == room:
                self._send()
        self._size += taken
        return taken

    def finish(self) -> int:
        if not self._upload:
            self._store.ask("put_object", key=self._key, Body=self._held)
        else:
            if self._held:
                self._send()
            self._complete()
        self._is_over, self._held = True, bytearray()
        return self._size

    def abort(self) -> None:
        if self._is_over:
            return
        self._is_over, self._held = True, bytearray()
        if self._upload:
            try:
                self._store.discard(Draft(self._key, self._upload, 0.0))
            except StoreUnavailable as error:
                log.warning("an unfinished upload stays until the sweep: %s", error)

    def _part_bytes(self) -> int:
        for most, size in _GROWTH:
            if len(self._parts) < most:
                return size
        raise StoreUnavailable("The object is larger than a bucket takes.")

    def _send(self) -> None:
        if not self._upload:
            self._upload = self._store.ask("create_multipart_upload", key=self._key)["UploadId"]
        number = len(self._parts) + 1
        made = self._store.ask(
            "upload_part", key=self._key, UploadId=self._upload, PartNumber=number, Body=self._held
        )
        self._parts.append({"ETag": made["ETag"], "PartNumber": number})
        self._held = bytearray()

    def _complete(self) -> None:
        try:
            self._store.ask(
                "complete_multipart_upload",
                key=self._key,
                UploadId=self._upload,
                MultipartUpload={"Parts": self._parts},
            )
        except ObjectMissing:  # the answer to an earlier attempt may have been lost
            found = self._store.stat(self._key)
            if found is None or found.size_bytes != self._size:
                raise StoreUnavailable("The bucket forgot a multipart upload.") from None


class _S3Reader(Positioned):
    """Two blocks in memory: where the object begins, and where it is read; a steady reader's blocks grow."""

    def __init__(self, store: S3Store, key: str) -> None:
        super().__init__()
        self._store, self._key = store, key
        self.size = -1
        self._head = self._fetch(0, _FIRST_READ)
        self._block, self._start = b"", 0
        self._ahead = _LEAST_READ

    def readinto(self, buffer: Buffer) -> int:
        """What one block has of it; 0 at the end."""
        target = memoryview(buffer).cast("B")
        if not len(target) or self._position >= self.size:
            return 0
        if self._position < len(self._head):
            held, start = self._head, 0
        else:
            if not self._start <= self._position < self._start + len(self._block):
                self._load(len(target))
            held, start = self._block, self._start
        piece = memoryview(held)[self._position - start :][: len(target)]
        target[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _load(self, wanted: int) -> None:
        end = self._start + len(self._block) if self._block else len(self._head)
        is_steady = self._position == end
        self._ahead = min(2 * self._ahead, _MOST_READ) if is_steady else _LEAST_READ
        self._block = b""  # before the next one comes: one block of memory, not two
        self._block = self._fetch(self._position, max(wanted, self._ahead))
        self._start = self._position

    def _fetch(self, start: int, length: int) -> bytes:
        """Bytes from `start` on, also when a connection breaks in the middle of an answer."""
        for attempt in range(_ATTEMPTS):
            try:
                return self._once(start, length)
            except ObjectMissing:
                raise
            except StoreUnavailable:
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("the loop returns or raises")

    def _once(self, start: int, length: int) -> bytes:
        wanted = f"bytes={start}-{start + length - 1}"
        answer = self._store.ask("get_object", key=self._key, Range=wanted)
        whole = str(answer["ContentRange"]).rpartition("/")[2]
        self.size = int(whole)
        body: bytes = answered(answer["Body"].read)
        if len(body) != min(length, self.size - start):
            raise StoreUnavailable("The bucket sent less than it said.")
        return body
