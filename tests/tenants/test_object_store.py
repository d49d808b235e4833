"""The object store keeps the same promises on disk and in S3: half-written is unseen, aborted leaves nothing."""

from __future__ import annotations

import io
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from saas.lib import object_store_s3
from saas.lib.object_store import ObjectMissing, ObjectStore, Place, StoreUnavailable, open_location, store_at
from tests import s3

KEY = "tenant-1/object-1/1"
MIB = 1 << 20


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """5 MiB, the least that S3 takes."""
    monkeypatch.setattr(object_store_s3, "_GROWTH", ((1, 5 * MIB), (10_000, 6 * MIB)))


def put(store: ObjectStore, key: str, data: bytes) -> int:
    sink = store.create(key)
    rest = memoryview(data)
    while rest:
        rest = rest[sink.write(rest[: 3 * MIB]) :]
    return sink.finish()


def read(store: ObjectStore, key: str) -> bytes:
    with store.open(key) as source:
        return source.read()


@pytest.mark.parametrize("size", [1, 11 * MIB + 7])
def test_it_works(store: ObjectStore, size: int) -> None:
    data = os.urandom(size)
    assert put(store, KEY, data) == size
    assert read(store, KEY) == data
    found = store.stat(KEY)
    assert found is not None
    assert (found.key, found.size_bytes) == (KEY, size)
    assert list(store.list("tenant-1")) == [found]
    assert list(store.folders()) == ["tenant-1"]
    store.delete(KEY)
    store.delete(KEY)
    assert store.stat(KEY) is None
    with pytest.raises(ObjectMissing):
        store.open(KEY)
    assert list(store.list("tenant-1")) == []


def test_random_access_reads_what_a_file_would(store: ObjectStore) -> None:
    data = os.urandom(5 * MIB + 3)
    put(store, KEY, data)
    chance, plain = random.Random(7), io.BytesIO(data)
    with store.open(KEY) as source:
        assert source.seek(0, os.SEEK_END) == len(data)
        for _ in range(20):
            at, wanted = chance.randrange(len(data) + 10), chance.randrange(1, 2 * MIB)
            assert source.seek(at) == plain.seek(at) == source.tell()
            got = bytearray()
            while len(got) < wanted and (piece := source.read(wanted - len(got))):
                got += piece
            assert got == plain.read(wanted)


def test_a_half_written_object_is_never_visible(store: ObjectStore) -> None:
    sink = store.create(KEY)
    for _ in range(3):
        sink.write(os.urandom(4 * MIB))
        assert store.stat(KEY) is None
        assert list(store.list("tenant-1")) == []
        with pytest.raises(ObjectMissing):
            store.open(KEY)
    assert [draft.key for draft in store.drafts("tenant-1")] == [KEY]
    sink.finish()
    assert list(store.drafts("tenant-1")) == []
    assert store.stat(KEY) is not None


def test_an_aborted_object_leaves_nothing(store: ObjectStore, place: Place) -> None:
    sink = store.create(KEY)
    sink.write(os.urandom(4 * MIB))
    sink.write(os.urandom(4 * MIB))
    sink.abort()
    sink.abort()
    assert list(store.drafts("tenant-1")) == []
    assert store.stat(KEY) is None
    kept = store.create(KEY)
    kept.write(b"kept")
    kept.finish()
    kept.abort()  # harmless
    assert read(store, KEY) == b"kept"


def test_drafts_of_writers_that_died_can_be_discarded(store: ObjectStore) -> None:
    left = [store.create(KEY), store.create("tenant-2/object-1/1")]
    for sink in left:
        sink.write(os.urandom(6 * MIB))
    for draft in list(store.drafts("tenant-1")):
        store.discard(draft)
        store.discard(draft)
    assert list(store.drafts("tenant-1")) == []
    assert len(list(store.drafts("tenant-2"))) == 1
    for sink in left:
        sink.abort()


def test_listings_are_sorted_whole_and_of_one_folder_only(store: ObjectStore) -> None:
    keys = sorted(f"tenant-1/object-{number:03}/1" for number in random.Random(3).sample(range(1000), 8))
    for key in [*keys, "tenant-10/object/1", "tenant/object/1"]:
        put(store, key, b"x")
    assert [found.key for found in store.list("tenant-1")] == keys
    assert sorted(store.folders()) == ["tenant", "tenant-1", "tenant-10"]
    store.delete_all("tenant-1")
    assert list(store.list("tenant-1")) == []
    assert sorted(store.folders()) == ["tenant", "tenant-10"]
    assert list(store.list("nobody")) == []


def test_what_others_laid_into_the_folder_is_passed_over(tmp_path: Path) -> None:
    store = store_at(Place(f"file:{tmp_path}"))
    put(store, KEY, b"ours")
    (tmp_path / "tenant-1" / "notes.txt").write_text("not ours")
    assert [found.key for found in store.list("tenant-1")] == [KEY]


def test_keys_that_leave_their_folder_are_refused(store: ObjectStore) -> None:
    for key in ("../other", "/etc/passwd", "a//b", "a/../b", ".hidden", "a b", "", "a/"):
        with pytest.raises(ValueError, match="Not a key"):
            store.create(key)
        with pytest.raises(ValueError, match="Not a key"):
            store.open(key)


def test_many_writers_at_once(store: ObjectStore) -> None:
    bodies = {f"tenant-1/object-{n}/1": os.urandom(MIB + n) for n in range(4)}
    threads = [threading.Thread(target=put, args=(store, key, data)) for key, data in bodies.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(read(store, key) == data for key, data in bodies.items())


def test_another_process_opens_a_location_of_its_own_store_only(place: Place, store: ObjectStore) -> None:
    put(store, KEY, b"sealed")
    with s3.environment(place), open_location(store.location(KEY)) as source:
        assert source.read() == b"sealed"
    if place.url.startswith("s3://"):
        with s3.environment(s3.bucket()), pytest.raises(ObjectMissing, match="does not lie"):
            open_location(store.location(KEY))
        with s3.environment(Place(place.url[:-1])), pytest.raises(ObjectMissing, match="does not lie"):
            open_location(store.location(KEY))


def test_a_bucket_that_refuses_or_is_gone_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = store_at(Place("s3://no-such-bucket/x", s3.endpoint(), "us-east-1", path_style=True))
    with pytest.raises(StoreUnavailable, match="NoSuchBucket"):
        put(gone, KEY, b"x")
    monkeypatch.setattr(object_store_s3, "_ATTEMPTS", 1)
    silent = object_store_s3.S3Store(
        Place("s3://bucket/x", "http://127.0.0.1:9", "us-east-1", path_style=True)
    )
    with pytest.raises(StoreUnavailable, match="does not answer"):
        silent.stat(KEY)


def test_an_answer_that_breaks_off_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    store: Any = store_at(s3.bucket())
    data = os.urandom(3 * MIB)
    put(store, KEY, data)
    real, broken = store.ask, []

    class Cut:
        def __init__(self, body: Any) -> None:
            self._body = body

        def read(self) -> bytes:
            return bytes(self._body.read())[:-5]

    def ask(operation: str, **more: Any) -> Any:
        answer = real(operation, **more)
        if operation == "get_object" and len(broken) < 2:
            broken.append(more["Range"])
            answer = {**answer, "Body": Cut(answer["Body"])}
        return answer

    monkeypatch.setattr(store, "ask", ask)
    assert read(store, KEY) == data
    assert len(broken) == 2
    monkeypatch.setattr(
        store, "ask", lambda operation, **more: {**real(operation, **more), "Body": Cut(io.BytesIO(b""))}
    )
    with pytest.raises(StoreUnavailable, match="less than"):
        store.open(KEY)


def test_settings_name_a_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from saas.lib.env import BadSetting

    for name in ("OBJECT_STORE", "S3_ENDPOINT", "S3_REGION", "S3_PATH_STYLE"):
        monkeypatch.delenv(name, raising=False)
    assert Place.from_environment(tmp_path) == Place(f"file:{tmp_path}")
    monkeypatch.setenv("OBJECT_STORE", "s3://data/cloister/")
    monkeypatch.setenv("S3_PATH_STYLE", "1")
    assert Place.from_environment(tmp_path) == Place("s3://data/cloister", path_style=True)
    monkeypatch.setenv("OBJECT_STORE", "/a/folder")
    with pytest.raises(BadSetting):
        Place.from_environment(tmp_path)
