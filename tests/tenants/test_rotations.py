"""Rotation under load with kill -9: every object opens all the while, none is left on the old key, and that is gone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from modeling.models import Dataset, DatasetKey
from modeling.models.datasets import dataset_place
from saas.lib.db import uuid7
from tenants import resealing, rotation, vault, vault_keys
from tenants.audit import Actor
from tenants.models import DataKey, KeyRotation, ObjectKey, Tenant, VaultObject
from tenants.scope import scope
from tests.proofs.record import Proof

pytestmark = pytest.mark.slow
OBJECTS = int(os.environ.get("ROTATED_OBJECTS", "1000"))
KILLS = int(os.environ.get("ROTATION_KILLS", "6"))
DATASETS = 100
NAIVE = 60
AT_ONCE = 500
OWNER = Actor("system", "tests", "tests")
SCRIPT = Path(__file__).with_name("rotate_worker.py")


class Worker:
    """One run of rotate_worker.py."""

    def __init__(self, tenant: Tenant, rotation_id: uuid.UUID | str, window: str, number: int) -> None:
        env = os.environ | {"PYTHONPATH": str(SCRIPT.parents[2]), "LOG_LEVEL": "ERROR"}
        words = [str(tenant.pk), str(rotation_id), window, str(number)]
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), *words], env=env, stdout=subprocess.PIPE, text=True
        )

    def said(self) -> str:
        """Its next word; killed once it stands at its window."""
        assert self.process.stdout is not None
        word = self.process.stdout.readline().strip()
        if word == "here":
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)
        self.process.stdout.close()
        return word


class Load:
    """Reads any object, writes new ones, and counts what did not work, until the block ends."""

    def __init__(self, tenant: Tenant, made: list[VaultObject]) -> None:
        self.tenant, self.made = tenant, list(made)
        self.counts, self.faults = Counter[str](), list[str]()
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(work,)) for work in (self._read, self._write)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, work: Any) -> None:
        while not self._over.is_set():
            try:
                work()
            except Exception as error:
                self.faults.append(f"{type(error).__name__}: {error}")
            self._over.wait(0.005)
        connection.close()

    def _read(self) -> None:
        one = random.choice(self.made)
        assert vault.get(one) == one.pk.bytes or one.kind != "upload"
        self.counts["read"] += 1

    def _write(self) -> None:
        with vault.create(self.tenant, "upload") as writer:
            writer.write(writer.id.bytes)
            self.made.append(writer.finish())
        self.counts["written"] += 1


def objects(tenant: Tenant, count: int) -> list[VaultObject]:
    """Small objects, each of which holds its own id."""
    made = []
    for begin in range(0, count, AT_ONCE):
        with scope(tenant):  # one commit for many: ten thousand take minutes otherwise
            for _number in range(min(AT_ONCE, count - begin)):
                with vault.create(tenant, "upload") as writer:
                    writer.write(writer.id.bytes)
                    made.append(writer.finish())
    return made


def datasets(tenant: Tenant, count: int) -> dict[uuid.UUID, bytes]:
    """Keys of datasets, by dataset."""
    found = {}
    with scope(tenant):
        for _number in range(count):
            dataset = Dataset.objects.of(tenant).create(
                id=uuid7(), name="d", pack="medical", task="", columns={}
            )
            found[dataset.pk] = os.urandom(32)
            wrapped = vault.seal_key(tenant, found[dataset.pk], place=dataset_place(dataset.pk))
            DatasetKey.objects.of(tenant).create(dataset=dataset, wrapped=wrapped)
    return found


def unreadable(tenant: Tenant, made: list[VaultObject]) -> int:
    """How many of these do not open, asked of a process that remembers nothing."""
    vault_keys.forget()
    count = 0
    for one in made:
        try:
            count += vault.get(one) != one.pk.bytes
        except vault.KeyDestroyed:
            count += 1
    return count


def test_kills_lose_no_object_and_leave_no_old_key(acme: Tenant, globex: Tenant, proof: Proof) -> None:
    begun_at = time.monotonic()
    made, rings = objects(acme, OBJECTS), datasets(acme, DATASETS)
    with scope(acme):
        kept = ObjectKey.objects.of(acme).get(object=made[0])  # a copy from before, as a backup has it
        begun = rotation.start(acme, OWNER)
        assert rotation.left_on_old_keys(acme) == OBJECTS + DATASETS
    counts = Counter[str]()
    batches = OBJECTS // rotation.AT_ONCE
    with Load(acme, made) as load:
        for kill in range(KILLS):
            window = ("inside", "between")[kill % 2] if kill < KILLS - 1 else "finish"
            number = 1 + max(2 * batches // KILLS, 1) if window == "between" else 1
            assert Worker(acme, begun.pk, window, number).said() == "here", window
            counts[window] += 1
            with scope(acme):
                counts["half-way"] += 0 < rotation.left_on_old_keys(acme) < OBJECTS + DATASETS
                assert sorted(DataKey.objects.of(acme).values_list("generation", flat=True)) == [0, 1, 2]
        assert Worker(acme, begun.pk, "never", 0).said() == "done"
    assert load.faults == []
    assert min(load.counts["read"], load.counts["written"]) > 20
    assert unreadable(acme, load.made) == 0
    with scope(acme):
        assert rotation.left_on_old_keys(acme) == 0
        assert sorted(DataKey.objects.of(acme).values_list("generation", flat=True)) == [0, 2]
        assert KeyRotation.objects.of(acme).get(pk=begun.pk).state == "done"
        for row in DatasetKey.objects.of(acme):
            assert vault.open_row(row, place=dataset_place(row.dataset_id)) == rings[row.dataset_id]
    with pytest.raises(vault.KeyDestroyed):
        vault.open_key(acme, bytes(kept.wrapped), place=vault.key_place(made[0]))
    assert counts["half-way"] >= counts["between"] > 0, "kills must fall half-way"
    lost = naive_loses(globex)
    found = (
        f"{OBJECTS:,} objects and {DATASETS} datasets, {KILLS} kills ({counts['inside']} inside a batch, "
        f"{counts['between']} between two, {counts['finish']} while the old key was deleted), beside "
        f"{load.counts['read']:,} reads and {load.counts['written']:,} writes: all readable, 0 left on the old key, "
        f"the old key gone; a rotation without generations, killed half-way, lost {lost} of {NAIVE}"
    )
    proof.found(
        "kill -9 while a tenant's key is rotated under load", found, seconds=time.monotonic() - begun_at
    )


def test_kills_while_objects_are_sealed_again(acme: Tenant, proof: Proof) -> None:
    begun_at = time.monotonic()
    count = max(OBJECTS // 20, 3 * KILLS)
    made = objects(acme, count)
    with scope(acme):
        before = {one.pk: vault.data_key(one) for one in made}
        begun = resealing.start(acme, OWNER)
    windows = Counter[str]()
    with Load(acme, made) as load:
        for kill in range(KILLS):
            window = ("sealed", "swapping", "swapped")[kill % 3]
            assert Worker(acme, begun.pk, window, 1 + count // (2 * KILLS)).said() == "here", window
            windows[window] += 1
        assert Worker(acme, begun.pk, "never", 0).said() == "done"
    assert load.faults == []
    assert unreadable(acme, load.made) == 0
    with scope(acme):
        assert sum(vault.data_key(one) == before[one.pk] for one in made) == 0
        done = KeyRotation.objects.of(acme).get(pk=begun.pk)
        living = {vault.object_key(one) for one in VaultObject.objects.of(acme).filter(pk__in=list(before))}
    assert done.state == "done"
    places = {key.rpartition("/")[0] for key in living}
    left = {one.key for one in vault.store().list(str(acme.pk)) if one.key.rpartition("/")[0] in places}
    current = {place: int(number) for place, _, number in (key.rpartition("/") for key in living)}
    assert living <= left
    never_used = [key.rpartition("/") for key in left - living]  # of killed workers; the nightly sweep's
    assert all(int(number) > current[place] for place, _, number in never_used), "old bytes are left"
    assert len(never_used) <= windows["sealed"] + windows["swapping"]
    found = (
        f"{count} objects, {KILLS} kills ({windows['sealed']} with new bytes and old key, {windows['swapping']} "
        f"inside the swap, {windows['swapped']} after it), beside {load.counts['read']:,} reads: all readable, each "
        "under a new data key, no old bytes left"
    )
    proof.found(
        "kill -9 while objects are sealed under new data keys", found, seconds=time.monotonic() - begun_at
    )


def naive_loses(tenant: Tenant) -> int:
    """The control: how many objects a rotation without generations loses when it is killed half-way."""
    made = objects(tenant, NAIVE)
    assert unreadable(tenant, made) == 0
    assert Worker(tenant, "-", "naive", NAIVE // 2).said() == "here"
    lost = unreadable(tenant, made)
    assert lost == NAIVE - NAIVE // 2, "the control must fail"
    return lost
