"""The audit log: every change has an entry, and an edited, deleted or cut entry is found."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.db import ProgrammingError, connection
from django.test import Client

from tenants import actions, audit
from tenants.audit import SYSTEM, Actor, Head
from tenants.models import AuditEntry
from tenants.scope import scope


@pytest.fixture
def log(acme: Any) -> Any:
    """Acme with a log of some length and odd values in it."""
    with scope(acme):
        for number in range(8):
            audit.record(
                acme, SYSTEM, "test.happened", acme, number=number, share=0.1 * number, large=1e22, tiny=1e-7
            )
        audit.record(
            acme,
            Actor("user", "1", "Ünïcode ✓"),
            "test.happened",
            None,
            words='é\n"quoted"',
            list=[1, 2.50, None, True],
        )
    return acme


def verdict(tenant: Any, head: Head | None = None) -> audit.Verdict:
    with scope(tenant):
        return audit.verify(tenant, head)


def tamper(statement: str, *values: Any) -> int:
    """Change the table as its owner would, row-level security and all grants put aside."""
    database = settings.DATABASES["migrator"]
    with psycopg.connect(
        host=database["HOST"],
        port=database["PORT"] or None,
        user=database["USER"],
        password=database["PASSWORD"],
        dbname=database["NAME"],
        **{key: value for key, value in database["OPTIONS"].items() if key != "pool"},
    ) as owner:
        owner.execute("ALTER TABLE tenants_auditentry NO FORCE ROW LEVEL SECURITY")
        changed = owner.execute(statement, values).rowcount
        owner.execute("ALTER TABLE tenants_auditentry FORCE ROW LEVEL SECURITY")
    return changed


def test_it_works(log: Any) -> None:
    found = verdict(log)
    assert found.is_whole
    assert found.entries >= 10


def test_an_edited_entry_is_found(log: Any) -> None:
    for column, value in [
        ("actor", "mallory"),
        ("action", "nothing"),
        ("details", '{"number": 99}'),
        ("at", "2020-01-01T00:00:00Z"),
    ]:
        with scope(log):
            before = AuditEntry.objects.of(log).values(column).get(seq=4)[column]
        where = "WHERE tenant_id = %s AND seq = 4"
        assert tamper(f"UPDATE tenants_auditentry SET {column} = %s {where}", value, log.pk) == 1
        assert verdict(log) == audit.Verdict(False, 3, 4, "changed")
        back = json.dumps(before) if column == "details" else before
        tamper(f"UPDATE tenants_auditentry SET {column} = %s {where}", back, log.pk)
        assert verdict(log).is_whole  # control: what was put back verifies


def test_a_deleted_entry_is_found(log: Any) -> None:
    assert tamper("DELETE FROM tenants_auditentry WHERE tenant_id = %s AND seq = 5", log.pk) == 1
    assert verdict(log) == audit.Verdict(False, 4, 5, "missing")


def test_a_renumbered_chain_is_found(log: Any) -> None:
    tamper("DELETE FROM tenants_auditentry WHERE tenant_id = %s AND seq = 5", log.pk)
    for seq in range(6, 12):
        tamper("UPDATE tenants_auditentry SET seq = seq - 1 WHERE tenant_id = %s AND seq = %s", log.pk, seq)
    assert verdict(log) == audit.Verdict(False, 4, 5, "changed")


def test_a_cut_tail_is_found_by_the_exported_head(log: Any) -> None:
    with scope(log):
        head = audit.newest(log)
    assert audit.exported_head(log) == head
    assert (
        tamper("DELETE FROM tenants_auditentry WHERE tenant_id = %s AND seq > %s", log.pk, head.seq - 2) == 2
    )
    assert verdict(log) == audit.Verdict(False, head.seq - 2, head.seq - 1, "cut")
    with scope(log):
        rest = audit.newest(log)
    assert verdict(log, rest).is_whole  # control: the chain alone cannot tell
    with scope(log):  # a tail written anew has other hashes than the head that was kept
        audit.record(log, SYSTEM, "test.forged", log)
        audit.record(log, SYSTEM, "test.forged", log)
    assert verdict(log) == audit.Verdict(False, head.seq - 1, head.seq, "rewritten")


def test_a_check_of_the_newest_entries_leaves_older_ones_out(log: Any) -> None:
    tamper("UPDATE tenants_auditentry SET actor = 'x' WHERE tenant_id = %s AND seq = 3", log.pk)
    with scope(log):
        last = audit.newest(log).seq
        assert audit.verify(log, newest_only=last - 3).is_whole
        assert audit.verify(log, newest_only=last - 2) == audit.Verdict(False, 2, 3, "changed")


def test_the_app_role_can_only_insert(log: Any) -> None:
    for statement in (
        "UPDATE tenants_auditentry SET actor = 'x'",
        "TRUNCATE tenants_auditentry",
    ):
        with (
            pytest.raises(ProgrammingError, match="permission denied"),
            scope(log),
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)
    with scope(log), connection.cursor() as cursor:
        cursor.execute("DELETE FROM tenants_auditentry")
        assert cursor.rowcount == 0  # the tenant lives: see tests/modeling/test_tenant_erasing.py
    assert verdict(log).is_whole


def test_an_entry_lives_and_dies_with_its_change(log: Any) -> None:
    before = verdict(log).entries
    with pytest.raises(RuntimeError), scope(log):
        actions.rename_tenant(log, "Another name", actor=SYSTEM)
        raise RuntimeError
    assert verdict(log).entries == before
    with scope(log):
        actions.rename_tenant(log, "Another name", actor=SYSTEM)
    assert verdict(log).entries == before + 1


def test_chains_of_two_tenants_do_not_mix(log: Any, globex: Any) -> None:
    with scope(globex):
        entry = audit.record(globex, SYSTEM, "test.happened", globex)
        assert entry.seq <= 4
    assert verdict(log).is_whole
    assert verdict(globex).is_whole


def test_the_page_filters_pages_and_exports(log: Any, vera: Client) -> None:
    page = vera.get(f"/t/{log.slug}/audit/")
    assert page.status_code == 200
    assert page.context["verdict"].is_whole
    only = vera.get(f"/t/{log.slug}/audit/", {"action": "tenant.created"})
    assert [entry.action for entry, _words in only.context["entries"]] == ["tenant.created"]
    with scope(log):
        for _ in range(60):
            audit.record(log, SYSTEM, "test.many", log)
    first = vera.get(f"/t/{log.slug}/audit/", {"action": "test.many"})
    second = vera.get(f"/t/{log.slug}/audit/" + first.context["next_url"])
    seen = [entry.seq for page in (first, second) for entry, _words in page.context["entries"]]
    assert len(seen) == 60
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == 60
    lines = vera.get(f"/t/{log.slug}/audit/export.jsonl").content.decode().splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
    assert entries[-1]["action"] == "audit.exported"
    assert entries[-1]["tenant"] == log.slug
    assert str(log.pk) not in "".join(lines)
    head = vera.get(f"/t/{log.slug}/audit/head.json").json()
    assert (head["seq"], head["hash"]) == (entries[-1]["seq"], entries[-1]["entry_hash"])


def test_a_broken_chain_shows_on_the_page(log: Any, alice: Client) -> None:
    tamper("UPDATE tenants_auditentry SET actor = 'x' WHERE tenant_id = %s AND seq = 3", log.pk)
    page = alice.get(f"/t/{log.slug}/audit/")
    assert not page.context["verdict"].is_whole
    assert "Entry 3 does not fit" in page.content.decode()
