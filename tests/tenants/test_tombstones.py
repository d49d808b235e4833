"""Tombstones: what was destroyed is written outside after the commit, and told again to a database that forgot it."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connections

from saas.lib import exported
from tenants import tombstones, vault
from tenants.models import ObjectKey, Tombstone, VaultObject
from tenants.scope import scope


def lines_of(tenant: Any) -> list[dict[str, Any]]:
    found = exported.lines(settings.TOMBSTONES_DIR)
    return [line for line in found if line["tenant"] == str(tenant.pk)]


def waiting(tenant: Any) -> int:
    """How many lines of a tenant the database lacks, as `up` asks before it starts anything."""
    with connections["operator"].cursor() as cursor:
        return sum(line["tenant"] == str(tenant.pk) for line in tombstones.unreplayed(cursor))


def outside(tenant: Any, kind: str, reference: str) -> None:
    """A line without its row, as after a restore."""
    row = tombstones._row(tenant.pk, kind, reference, datetime.now(UTC))
    exported.append(settings.TOMBSTONES_DIR, [tombstones._line(row)], at=datetime.now(UTC))


def test_it_works(acme: Any) -> None:
    made, other = vault.put(acme, "upload", b"one"), vault.put(acme, "upload", b"two")
    vault.destroy(made)
    vault.destroy(made)
    with scope(acme):
        assert Tombstone.objects.of(acme).get().reference == str(made.pk)
        assert tombstones.is_noted(acme, "object", str(made.pk))
        assert not tombstones.is_noted(acme, "object", str(other.pk))
    assert [(line["kind"], line["reference"]) for line in lines_of(acme)] == [("object", str(made.pk))]
    assert waiting(acme) == 0


def test_what_a_restored_backup_brought_back_is_destroyed_again(acme: Any) -> None:
    back, other = vault.put(acme, "upload", b"back"), vault.put(acme, "upload", b"other")
    outside(acme, "object", str(back.pk))
    assert vault.get(back) == b"back"
    assert waiting(acme) == 1
    assert tombstones.replay() == 1
    with pytest.raises(vault.KeyDestroyed):
        vault.get(back)
    with scope(acme):
        assert VaultObject.objects.of(acme).get(pk=back.pk).destroyed_at is not None
        assert ObjectKey.objects.of(acme).filter(object=back).count() == 0
    assert vault.get(other) == b"other"
    assert tombstones.replay() == 0


def test_a_rolled_back_destruction_leaves_no_tombstone(acme: Any) -> None:
    made = vault.put(acme, "upload", b"one")
    with pytest.raises(RuntimeError), scope(acme):
        vault.destroy(made)
        raise RuntimeError
    with scope(acme):
        assert Tombstone.objects.of(acme).count() == 0
    assert lines_of(acme) == []
    assert vault.get(made) == b"one"


def test_a_line_that_was_never_written_outside_is_written_later(acme: Any, tmp_path: Path) -> None:
    made = vault.put(acme, "upload", b"one")
    kept = settings.TOMBSTONES_DIR
    (tmp_path / "full").write_text("a file where the folder should be")
    try:
        settings.TOMBSTONES_DIR = tmp_path / "full"
        vault.destroy(made)  # the export fails, which the log says; the destruction stands
    finally:
        settings.TOMBSTONES_DIR = kept
    assert lines_of(acme) == []
    assert tombstones.export_missing() == 1
    assert [line["reference"] for line in lines_of(acme)] == [str(made.pk)]
    assert tombstones.export_missing() == 0


def test_strangers_and_unknown_kinds(acme: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(settings, "TOMBSTONES_DIR", tmp_path)
    assert waiting(acme) == 0
    gone = tombstones._row(uuid.uuid4(), "object", str(uuid.uuid4()), datetime.now(UTC))
    exported.append(tmp_path, [tombstones._line(gone)], at=datetime.now(UTC))
    assert tombstones.replay() == 0  # a tenant this database never had
    outside(acme, "planet", "mars")
    with pytest.raises(LookupError, match="planet"):
        tombstones.replay()


def test_old_lines_are_passed_over_unless_everything_is_asked_for(
    acme: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(settings, "TOMBSTONES_DIR", tmp_path)
    made = vault.put(acme, "upload", b"one")
    old = datetime(2020, 1, 1, tzinfo=UTC)
    exported.append(
        tmp_path, [tombstones._line(tombstones._row(acme.pk, "object", str(made.pk), old))], at=old
    )
    assert tombstones.replay() == 0
    assert vault.get(made) == b"one"
    assert tombstones.replay(everything=True) >= 1  # and what other tests left behind, harmlessly
    with pytest.raises(vault.KeyDestroyed):
        vault.get(made)


def test_a_torn_line_costs_nothing_but_itself(tmp_path: Path) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    exported.append(tmp_path, [{"n": 1}], at=now)
    with (tmp_path / "2026-01.jsonl").open("ab") as file:
        file.write(json.dumps({"n": 2}).encode()[:4])
    exported.append(tmp_path, [{"n": 3}], at=now)
    assert [line["n"] for line in exported.lines(tmp_path)] == [1, 3]
    assert (tmp_path / "2026-01.jsonl").stat().st_mode & 0o777 == 0o600
