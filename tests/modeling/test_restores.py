"""Shred, then restore a backup of everything: once the tombstones are replayed, nothing that was shredded decrypts."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.exceptions import ObjectDoesNotExist
from django.core.management import call_command
from django.db import connections
from psycopg import sql

from modeling.actions.datasets import read_rows, shred_dataset, shred_unit
from modeling.core.segments import SegmentBroken
from modeling.units import handle_key, person_handle
from saas.lib.object_store import Place
from saas.lib.sealed import SealBroken
from tenants import tombstones, vault, vault_keys
from tenants.backups import key_tables
from tenants.models import Tenant, Tombstone, VaultObject
from tenants.scope import scope
from tests.modeling.test_files_units import add, table
from tests.proofs.record import Proof

RESTORES = int(os.environ.get("RESTORES", "1"))  # of each kind: as many are shredded as are kept
# Of an erased tenant the rows are gone as well.
UNREADABLE = (vault.KeyDestroyed, SealBroken, SegmentBroken, FileNotFoundError, ObjectDoesNotExist)


class Backup:
    """All tables by COPY as the cluster's superuser, and the folder of objects; never the tombstones outside."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url, self._folder = url, folder
        self._tables: dict[str, bytes] = {}

    def take(self, objects: Path) -> None:
        """Copy everything."""
        with psycopg.connect(self._url) as database:
            names = database.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'django_migrations'"
            ).fetchall()
            for (name,) in names:
                query = sql.SQL("COPY {} TO STDOUT (FORMAT binary)").format(sql.Identifier(name))
                with database.cursor().copy(query) as rows:
                    self._tables[name] = b"".join(rows)
        shutil.copytree(objects, self._folder)

    def restore(self, objects: Path, *, keys: bool = True) -> None:
        """Make the database and the folder what they were; without `keys`, from the backup of data alone."""
        connections.close_all()
        every = sql.SQL(", ").join(map(sql.Identifier, self._tables))
        left_out = set() if keys else set(key_tables())
        with psycopg.connect(self._url) as database:
            database.execute("SET session_replication_role = replica")  # rows come in no order of keys
            database.execute(sql.SQL("TRUNCATE {}").format(every))
            for name, rows in self._tables.items():
                if name not in left_out:
                    query = sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(sql.Identifier(name))
                    with database.cursor().copy(query) as sink:
                        sink.write(rows)
        shutil.rmtree(objects)
        shutil.copytree(self._folder, objects)
        vault_keys.forget()  # whoever restores starts new processes


class World:
    """Two tenants with objects, datasets and people; half of each will be shredded, and one tenant whole."""

    def __init__(self, acme: Tenant, globex: Tenant, api: Any, globex_api: Any) -> None:
        self.acme, self.globex = acme, globex
        twice = range(2 * RESTORES)
        self.objects = [vault.put(acme, "upload", f"object {n}".encode()) for n in twice]
        self.versions = [add(acme, api, table(range(2 * RESTORES), seed=n)) for n in twice]
        self.theirs = vault.put(globex, "upload", b"globex")
        self.their_version = add(globex, globex_api, table(range(4)))
        self.handles = [person_handle(handle_key(acme), f"P{n}") for n in range(2 * RESTORES)]

    def everything(self) -> set[str]:
        """Names of all that can be read at first."""
        return set(dict(self._things()))

    def doomed(self) -> set[str]:
        """Names of what will be shredded: also people of datasets that are shredded whole."""
        gone = {f"object {n}" for n in range(RESTORES)} | {"globex object"}
        for n in range(2 * RESTORES):
            gone |= {f"dataset {n} person {p}" for p in range(2 * RESTORES) if n < RESTORES or p < RESTORES}
        return gone | {f"globex person {n}" for n in range(4)}

    def shred(self) -> None:
        """Objects, whole datasets, people of the other datasets, a whole tenant."""
        with scope(self.acme):
            for stored in self.objects[:RESTORES]:
                vault.destroy(stored)
            for version in self.versions[:RESTORES]:
                shred_dataset(self.acme, version.dataset)
            for version in self.versions[RESTORES:]:
                for handle in self.handles[:RESTORES]:
                    shred_unit(version.dataset, handle)
        vault.shred_tenant(self.globex)
        vault_keys.forget()

    def readable(self) -> set[str]:
        """Names of what decrypts, to the right bytes."""
        return {name for name, is_right in self._things() if is_right}

    def _things(self) -> Iterator[tuple[str, bool]]:
        for number, stored in enumerate(self.objects):
            yield f"object {number}", _reads(stored) == f"object {number}".encode()
        yield "globex object", _reads(self.theirs) == b"globex"
        for number, version in enumerate(self.versions):
            people = _people(version)
            for person in range(2 * RESTORES):
                yield f"dataset {number} person {person}", people.count(f"P{person}") == 3
        people = _people(self.their_version)
        for person in range(4):
            yield f"globex person {person}", people.count(f"P{person}") == 3


def _reads(stored: VaultObject) -> bytes | None:
    try:
        return vault.get(stored)
    except UNREADABLE:
        return None


def _people(version: Any) -> list[str]:
    try:
        return [row.values["patient_id"] for row in read_rows(version, columns=["patient_id"])]
    except UNREADABLE:
        return []


@pytest.mark.slow
def test_what_was_shredded_stays_so_after_a_restore(
    people: Any,
    api: Any,
    globex_api: Any,
    settings: Any,
    tmp_path: Path,
    superuser_url: str,
    proof: Proof,
) -> None:
    begun = time.monotonic()
    settings.TOMBSTONES_DIR = tmp_path / "tombstones"
    objects = tmp_path / "objects"
    settings.OBJECT_STORE = Place(f"file:{objects}")
    world = World(people.acme, people.globex, api, globex_api)
    backup = Backup(superuser_url, tmp_path / "backup")
    everything, doomed = world.everything(), world.doomed()
    assert world.readable() == everything
    backup.take(objects)
    world.shred()
    assert world.readable() == everything - doomed
    backup.restore(objects)
    assert world.readable() == everything  # control: a restore alone brings all of it back
    with connections["operator"].cursor() as cursor:
        told = len(tombstones.unreplayed(cursor))
    assert tombstones.replay() == told == 2 * RESTORES + RESTORES**2 + 1
    vault_keys.forget()
    assert world.readable() == everything - doomed
    assert tombstones.replay() == 0
    backup.restore(objects, keys=False)
    assert world.readable() == set()  # control: data without keys is nothing to anyone
    backup.restore(objects)
    call_command("restore_check", "--all", verbosity=0)
    vault_keys.forget()
    assert world.readable() == everything - doomed
    proof.found(
        "shredded, then restored from a backup",
        f"{len(doomed)} of {len(everything)} objects and people's rows shredded (objects, datasets, people, a tenant): "
        f"a restore alone brings back {len(doomed)}, with {told} tombstones replayed 0, the other "
        f"{len(everything - doomed)} all readable; from data without keys nothing decrypts",
        seconds=time.monotonic() - begun,
    )


def test_a_restored_backup_of_another_age_of_keys_is_replayed_whole(
    acme: Tenant, settings: Any, tmp_path: Path
) -> None:
    """The tombstones' rows travel with the keys; `--all` does not even trust those."""
    settings.TOMBSTONES_DIR = tmp_path / "tombstones"
    made = vault.put(acme, "upload", b"back")
    with scope(acme):
        from tenants.models import ObjectKey

        wrapped = ObjectKey.objects.of(acme).filter(object=made).values().get()
        vault.destroy(made)
        ObjectKey.objects.of(acme).create(
            **wrapped
        )  # keys of an older backup beside newer rows of everything else
        assert Tombstone.objects.of(acme).count() == 1
    store = vault.store()
    sink = store.create(vault.object_key(made))
    sink.write(b"bytes")
    sink.finish()
    assert tombstones.replay() == 0
    assert tombstones.replay(everything=True) >= 1
    with pytest.raises(vault.KeyDestroyed):
        vault.data_key(made)


def test_the_backup_of_keys_takes_every_table_that_holds_keys(capsys: pytest.CaptureFixture[str]) -> None:
    found = set(key_tables())
    assert found >= {
        "tenants_datakey",
        "tenants_objectkey",
        "tenants_tombstone",
        "modeling_datasetkey",
        "modeling_unitkey",
        "modeling_predictionkey",
    }
    with connections["migrator"].cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT table_name FROM information_schema.columns WHERE column_name LIKE 'wrapped%'"
        )
        assert {row[0] for row in cursor.fetchall()} <= found
    call_command("backup_options", "keys")
    assert "--data-only --table=modeling_datasetkey" in capsys.readouterr().out
    call_command("backup_options", "data")
    assert "--exclude-table-data=tenants_objectkey" in capsys.readouterr().out
