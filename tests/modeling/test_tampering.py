"""Whatever is done to the ledger's rows as the tables' owner is found: every column, every row, every tail."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.db import DatabaseError, connections, transaction

from modeling.actions import chain
from modeling.models import LedgerHead, PrivacyAccount, PrivacyEntry
from tenants.models import Tenant
from tenants.scope import scope
from tests.modeling.clinic import as_owner, started, train
from tests.proofs.record import Proof

TABLE = "modeling_privacyentry"
# Not in the hash: the row's own uuid, to which nothing refers (lines are named by tenant and seq).
SURROGATE = "id"
GUARDED = "tenant_id"  # moving a line to another tenant is refused by the database itself


@pytest.fixture
def tenant(api: Any, acme: Tenant, words_file: str) -> Tenant:
    """A ledger with every kind of line: a job that ran, one that was cancelled, one without privacy."""
    assert (
        train(acme, started(api, words_file, privacy={"epsilon": 3}, max_steps=4)["id"]).state == "succeeded"
    )
    api.post(f"/v1/fine_tuning/jobs/{started(api, words_file)['id']}/cancel")
    started(api, words_file, privacy={"mode": "off", "reason": "a control"})
    with scope(acme):
        PrivacyAccount.objects.of(acme).create(unit_label="row", lifetime_epsilon=9, delta=1e-5)
    assert verified(acme) is None
    return acme


def verified(tenant: Tenant, exported: chain.Head | None = None) -> str | None:
    """What the check says is wrong; None when all is well."""
    with scope(tenant):
        try:
            chain.verify(tenant, exported=exported)
        except chain.ChainBroken as broken:
            return str(broken)
    return None


def saved(tenant: Tenant) -> list[dict[str, Any]]:
    """The tenant's lines, each as JSON with every column, oldest first."""
    with transaction.atomic(using="migrator"), connections["migrator"].cursor() as cursor:
        cursor.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant.pk)])
        cursor.execute(f"SELECT to_jsonb(e)::text FROM {TABLE} e ORDER BY seq")
        return [json.loads(text) for (text,) in cursor.fetchall()]


def restore(tenant: Tenant, lines: list[dict[str, Any]]) -> None:
    """Put the lines back as they were; the check must be content again."""
    as_owner(tenant, f"DELETE FROM {TABLE}")
    for line in lines:
        as_owner(
            tenant,
            f"INSERT INTO {TABLE} SELECT * FROM jsonb_populate_record(NULL::{TABLE}, %s::jsonb)",
            json.dumps(line),
        )
    as_owner(
        tenant,
        "UPDATE modeling_ledgerhead SET seq = %s, entry_hash = %s",
        lines[-1]["seq"],
        lines[-1]["entry_hash"],
    )


def others(value: Any) -> Iterator[Any]:
    """Values near this one: each leaf of a JSON value changed by the least there is, a key gone, a key more."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from ({**value, key: changed} for changed in others(inner))
            yield {name: one for name, one in value.items() if name != key}
        yield {**value, "one more": 0}
    elif isinstance(value, list):
        for index in sorted({0, len(value) // 2, len(value) - 1} if value else ()):
            yield from ([*value[:index], changed, *value[index + 1 :]] for changed in others(value[index]))
        yield [*value, 0.0]
        if value:
            yield value[:-1]
    else:
        yield from others_of_leaf(value)


def others_of_leaf(value: Any) -> Iterator[Any]:
    """The nearest other values of a number, a text, a truth value or nothing."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
    elif isinstance(value, float):
        yield math.nextafter(value, math.inf)
    elif isinstance(value, str):
        yield value + "x"
        if value:
            yield value[:-1] + ("0" if value[-1] != "0" else "1")
    else:
        yield 0


def changes_of(tenant: Tenant, line: dict[str, Any], column: str) -> Iterator[Any]:
    """Other values of a column that the database would take."""
    value = line[column]
    if column in ("account_id", "job_id", "dataset_version_id"):
        model = PrivacyEntry._meta.get_field(column.removesuffix("_id")).related_model
        with scope(tenant):
            ids = list(model.objects.of(tenant).values_list("pk", flat=True))  # type: ignore[union-attr]
        yield from (str(one) for one in ids if str(one) != value)
        if column == "dataset_version_id" and value is not None:
            yield None
    elif column == "kind":
        yield from (kind for kind in PrivacyEntry.Kind.values if kind != value)
    elif column == "partition":
        yield from (one for one in ("", "train", "held_out") if one != value)
    elif column == "at":
        yield (datetime.fromisoformat(value) + timedelta(microseconds=1)).isoformat()
        yield "2020-01-01T00:00:00+00:00"
    elif column in ("epsilon", "epsilon_replace_one"):
        yield from (7.5, None if value is not None else 1.0)
        yield from others(value) if value is not None else ()
    elif column in ("previous_hash", "entry_hash"):
        yield value[:-1] + ("0" if value[-1] != "0" else "1")
    elif column == "seq":
        yield from (value + 1_000, 10**9)
    else:
        yield from others(value)


def test_every_column_of_every_kind_of_line(tenant: Tenant, proof: Proof) -> None:
    begun, tried = time.monotonic(), 0
    columns = [field.column for field in PrivacyEntry._meta.concrete_fields]
    lines = saved(tenant)
    assert set(lines[0]) == set(columns)
    kinds = {line["kind"]: line for line in reversed(lines)}
    assert set(kinds) == {"reserved", "charged", "settled", "released", "unbounded"}
    for line in kinds.values():
        for column in sorted({*columns} - {SURROGATE, GUARDED}):
            for value in changes_of(tenant, line, column):
                tried += 1
                assert found_at_once(tenant, line, column, value), (line["kind"], column, value)
    restore(tenant, lines)
    assert verified(tenant) is None
    assert tried > 200
    proof.found(
        "a changed cell of the ledger",
        f"{tried} changes over all {len(columns) - 2} columns of every kind of line: all found",
        seconds=time.monotonic() - begun,
    )


def found_at_once(tenant: Tenant, line: dict[str, Any], column: str, value: Any) -> bool:
    """Change one cell, ask the check, change it back."""
    refused = False
    try:
        assert write(tenant, line["id"], column, value) == 1
    except DatabaseError:
        refused = True  # a constraint of the table caught it first
    found = refused or verified(tenant) is not None
    if not refused:
        write(tenant, line["id"], column, line[column])
    return found


def write(tenant: Tenant, pk: str, column: str, value: Any) -> int:
    cell = f"(jsonb_populate_record(NULL::{TABLE}, %s::jsonb)).{column}"
    statement = f"UPDATE {TABLE} SET {column} = {cell} WHERE id = %s"
    return as_owner(tenant, statement, json.dumps({column: value}), pk)


def test_a_line_cannot_move_to_another_tenant(tenant: Tenant, globex: Tenant) -> None:
    with pytest.raises(DatabaseError):
        write(tenant, saved(tenant)[0]["id"], GUARDED, str(globex.pk))


def test_every_deleted_line_is_found(tenant: Tenant) -> None:
    lines = saved(tenant)
    for line in lines:
        assert as_owner(tenant, f"DELETE FROM {TABLE} WHERE seq = %s", line["seq"]) == 1
        assert verified(tenant), line["seq"]
        restore(tenant, lines)
    assert verified(tenant) is None


def test_every_swap_of_neighbours_is_found(tenant: Tenant) -> None:
    lines = saved(tenant)
    for first, second in pairwise(lines):
        swap(tenant, first["seq"], second["seq"])
        assert verified(tenant), first["seq"]
        swap(tenant, first["seq"], second["seq"])
    assert verified(tenant) is None


def swap(tenant: Tenant, one: int, other: int) -> None:
    for to, old in ((10**9, one), (one, other), (other, 10**9)):
        assert as_owner(tenant, f"UPDATE {TABLE} SET seq = %s WHERE seq = %s", to, old) == 1


@pytest.mark.parametrize("with_head", [False, True])
def test_every_cut_tail_is_found(tenant: Tenant, with_head: bool) -> None:
    """Without the head moved along by the check alone; with it only by the head that was exported before."""
    lines = saved(tenant)
    with scope(tenant):
        exported = chain.export_head(tenant)
    for cut in lines[1:]:
        as_owner(tenant, f"DELETE FROM {TABLE} WHERE seq >= %s", cut["seq"])
        if with_head:
            as_owner(
                tenant,
                "UPDATE modeling_ledgerhead SET seq = %s, entry_hash = %s",
                cut["seq"] - 1,
                cut["previous_hash"],
            )
            assert verified(tenant) is None  # the control: the chain alone is sound
        assert verified(tenant, exported)
        assert with_head or verified(tenant)
        restore(tenant, lines)
    assert verified(tenant, exported) is None
    with scope(tenant):
        assert LedgerHead.objects.of(tenant).get().seq == lines[-1]["seq"]
