"""Erasing a whole tenant: every table, every step killed, holds, payments, a restore; the neighbour stays as it was."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from django.utils import timezone

from billing import actions as billing_actions
from billing import gateway
from billing.models import Subscription
from billing.standin.state import subscribe
from modeling.actions import holds, tenant_erasing, tenant_erasure
from modeling.actions.tenant_erasing import STAYS, STEPS
from modeling.tasks.tenants import erase_tenant, erase_tenants
from saas.lib import exported
from saas.lib.errors import Conflict
from saas.management.commands.seed_demo import demo_tenant
from tenants import actions, tombstones, vault, vault_keys
from tenants.audit import SYSTEM, Actor
from tenants.demo import DemoTenant
from tenants.models import DataKey, Tenant, TenantErasure
from tenants.scope import scope
from tests.architecture.matrix import rows_as_text
from tests.billing.conftest import standin  # noqa: F401 (a fixture)
from tests.make import Api
from tests.modeling.one_of_each import plant

OWNER = Actor("user", "1", "owner@example.test")
STAYING = {apps.get_model(label)._meta.db_table for label in STAYS}


@pytest.fixture(autouse=True)
def no_engine(settings: Any) -> None:
    """None runs here, and nobody waits for one."""
    settings.ENGINE_PATIENCE_SECONDS = 0.01


def due(tenant: Tenant) -> None:
    """An owner asked, and the days of grace are over."""
    tenant_erasure.request(tenant, OWNER)
    over(tenant)


def over(tenant: Tenant) -> None:
    with scope(tenant):
        TenantErasure.objects.of(tenant).filter(state="requested").update(due_at=timezone.now())


def row_of(tenant: Tenant) -> TenantErasure:
    with scope(tenant):
        return TenantErasure.objects.of(tenant).exclude(state="withdrawn").latest("id")


def left(tenant: Tenant) -> set[str]:
    """The tables that still have rows of a tenant."""
    return {table for table, rows in rows_as_text(tenant).items() if rows}


def state_of(tenant: Tenant) -> tuple[Any, ...]:
    """All of a tenant: its own row, its rows in every table, and the digests of its objects' bytes."""
    store = vault.store()
    objects = []
    for stored in store.list(str(tenant.pk)):
        with store.open(stored.key) as source:
            objects.append((stored.key, hashlib.sha256(source.read()).hexdigest()))
    with scope(tenant):
        own = Tenant.objects.filter(pk=tenant.pk).values().get()
    return own, rows_as_text(tenant), objects


def test_every_table_is_emptied_or_stays_for_a_reason(people: Any, acme: Any, globex: Any) -> None:
    for tenant, name in ((acme, "bob"), (globex, "carol")):
        sealed = vault.put(tenant, "upload", b"planted")
        tables = plant(tenant, people.user(name))
        assert len(left(tenant)) == tables
        assert vault.get(sealed) == b"planted"
    assert all(STAYS.values())
    neighbour = state_of(globex)
    due(acme)
    erase_tenant(tenant_id=str(acme.pk))
    assert left(acme) == STAYING
    assert list(vault.store().list(str(acme.pk))) == []
    assert state_of(globex) == neighbour
    said = "\n".join(text for rows in rows_as_text(acme).values() for text in rows)
    for word in (acme.slug, acme.name, people.tag, OWNER.label):
        assert word not in said
    row = row_of(acme)
    assert row.state == "erased"
    assert row.evidence["rows"]["modeling.Job"] == 1
    assert row.evidence["audit"][0] >= 3
    due(globex)  # what was planted disturbs no other test
    assert not tenant_erasing.run(globex.pk)
    assert left(globex) == STAYING


def test_a_table_that_is_forgotten_is_found(people: Any, acme: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the walk above."""
    leaves, others = tenant_erasing.erased_models()
    kept = next(model for model in leaves if model.__name__ == "Prediction")
    monkeypatch.setattr(
        tenant_erasing, "erased_models", lambda: ([one for one in leaves if one is not kept], others[:])
    )
    with scope(acme):
        assert apps.get_model("tenants.Member").objects.of(acme).count() == 3
    plant(acme, people.user("bob"))
    due(acme)
    with pytest.raises(Exception, match="prediction"):  # its key's row is still pointed at
        tenant_erasing.run(acme.pk)
    assert "modeling_prediction" in left(acme) - STAYING
    monkeypatch.undo()
    tenant_erasing.run(acme.pk)
    assert left(acme) == STAYING


def test_nobody_gets_in_and_nothing_opens(people: Any, alice: Any, acme: Any, mailoutbox: Any) -> None:
    api = Api(people.key(acme))
    sealed = vault.put(acme, "upload", b"secret")
    store, key = vault.store(), vault.object_key(sealed)
    with store.open(key) as source:
        stolen = source.read()  # whoever kept the bytes
    with scope(acme):
        wrapped = vault.seal_key(acme, b"k" * 32, place="anywhere")
    due(acme)
    assert api.get("/v1/files").status_code == 200
    assert tenant_erasing.close(acme.pk)
    assert alice.get(f"/t/{acme.slug}/").status_code == 403
    assert api.get("/v1/files").status_code == 401
    tenant_erasing.run(acme.pk)
    assert alice.get(f"/t/{acme.slug}/").status_code == 404
    assert alice.get("/tenants/").status_code == 200  # people stay
    with pytest.raises(vault.KeyDestroyed):
        vault.get(sealed)
    with pytest.raises(vault.KeyDestroyed):
        vault.derive(acme, "audit")
    with pytest.raises(vault.KeyDestroyed):
        vault.open_key(acme, wrapped, place="anywhere")
    assert stolen
    assert list(store.list(str(acme.pk))) == []
    assert [one.to for one in mailoutbox] == [[f"alice-{people.tag}@example.test"]] * 2
    assert "was deleted" in mailoutbox[-1].subject


def test_the_slug_never_comes_back(people: Any, acme: Any) -> None:
    slug = acme.slug
    due(acme)
    tenant_erasing.run(acme.pk)
    with pytest.raises(Conflict):
        actions.create_tenant(people.user("zoe"), "Zoe", "medical", slug=slug)
    assert actions.create_tenant(people.user("zoe"), slug, "medical").slug == f"{slug}-2"
    demo = DemoTenant(f"zoe-{people.tag}@example.test", slug, slug, "medical", "")
    assert demo_tenant(demo) is None  # a deleted demo stops no start


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("after", range(len(STEPS)))
def test_killed_after_each_step_and_begun_again(
    acme: Any, globex: Any, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    sealed = vault.put(acme, "upload", b"planted")
    neighbour = state_of(globex)
    due(acme)

    def die(tenant_id: uuid.UUID) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(tenant_erasing, "STEPS", (*STEPS[:after], die, *STEPS[after:]))
        with pytest.raises(Killed):
            tenant_erasing.run(acme.pk)
    if after == 0:
        assert vault.get(sealed) == b"planted"
    else:
        with pytest.raises(vault.KeyDestroyed):
            vault.get(sealed)
    assert (left(acme) == STAYING - {"billing_subscription", "billing_usageevent"}) == (after >= 3)
    assert acme.pk in tenant_erasing.waiting()  # the timetable takes it up
    tenant_erasing.run(acme.pk)
    tenant_erasing.run(acme.pk)
    assert left(acme) == STAYING - {"billing_subscription", "billing_usageevent"}
    assert state_of(globex) == neighbour


def test_killed_inside_a_step(acme: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = vault.put(acme, "upload", b"planted")
    due(acme)
    with monkeypatch.context() as patched:

        def die(*_: object) -> None:
            raise Killed

        patched.setattr(tenant_erasing, "announce_revocation", die)
        with pytest.raises(Killed):
            tenant_erasing.run(acme.pk)
        with scope(acme):
            assert Tenant.objects.get(pk=acme.pk).state == "active"
        patched.undo()
        tenant_erasing.close(acme.pk)
        patched.setattr(tenant_erasing, "announce_revocation", die)
        with pytest.raises(Killed):  # keys, tombstone and names: all or nothing
            tenant_erasing.shred(acme.pk)
        assert vault.get(sealed) == b"planted"
        patched.undo()
        patched.setattr(tenant_erasing, "AT_ONCE", 1)
        patched.setattr(tenant_erasing, "_finish", die)
        with pytest.raises(Killed):
            tenant_erasing.run(acme.pk)
        assert "tenants_invite" not in left(acme)
    tenant_erasing.run(acme.pk)
    assert row_of(acme).state == "erased"


def test_a_legal_hold_stops_it_when_asked_for_and_when_due(acme: Any) -> None:
    sealed = vault.put(acme, "upload", b"planted")
    with scope(acme):
        hold = holds.place(acme, SYSTEM, reason="Case 17")
    with pytest.raises(Conflict, match="Case 17"):
        tenant_erasure.request(acme, OWNER)
    with scope(acme):
        holds.release(acme, SYSTEM, hold, reason="over")
    due(acme)
    with scope(acme):
        hold = holds.place(acme, SYSTEM, reason="Case 18")
    assert not tenant_erasing.run(acme.pk)
    assert row_of(acme).state == "requested"
    assert "legal hold" in row_of(acme).trouble
    assert vault.get(sealed) == b"planted"
    with scope(acme):
        holds.release(acme, SYSTEM, hold, reason="over")
    tenant_erasing.close(acme.pk)
    with scope(acme):
        hold = holds.place(acme, SYSTEM, reason="Case 19")  # by a request that was under way
    tenant_erasing.run(acme.pk)
    with scope(acme):
        assert Tenant.objects.get(pk=acme.pk).state == "active"
    assert vault.get(sealed) == b"planted"
    with scope(acme):
        holds.release(acme, SYSTEM, hold, reason="over")
    tenant_erasing.run(acme.pk)
    assert row_of(acme).state == "erased"


@pytest.fixture
def customer(standin: Any, acme: Any) -> Iterator[str]:  # noqa: F811
    """Acme pays for a plan."""
    prices = gateway.ensure_catalogue()
    made = gateway.create_customer(str(acme.pk), "Acme", "a@example.test")
    subscribe(standin.state, made, standin.state.get("price", prices["team"]), {})
    with scope(acme):
        Subscription.objects.of(acme).create(stripe_customer=made)
    billing_actions.sync_customer(made)
    with scope(acme):
        billing_actions.record_usage(acme, "predictions", 40, "a")
    return made


def test_the_plan_ends_even_when_stripe_is_away_at_first(
    standin: Any,  # noqa: F811
    customer: str,
    acme: Any,
    settings: Any,
) -> None:
    sealed = vault.put(acme, "upload", b"planted")
    due(acme)
    settings.STRIPE_API_BASE = "http://127.0.0.1:1"
    gateway._client.cache_clear()
    assert not tenant_erasing.run(acme.pk)
    with pytest.raises(vault.KeyDestroyed):
        vault.get(sealed)
    row = row_of(acme)
    assert (row.state, row.billing_at) == ("erased", None)
    assert row.trouble.startswith("billing: The payment service does not answer")
    assert acme.pk in tenant_erasing.waiting()
    assert standin.state.all("subscription")[0]["status"] == "active"
    settings.STRIPE_API_BASE = standin.base
    gateway._client.cache_clear()
    tenant_erasing.run(acme.pk)
    tenant_erasing.run(acme.pk)
    assert row_of(acme).billing_at is not None
    assert standin.state.all("subscription")[0]["status"] == "canceled"
    assert [one["payload"]["value"] for one in standin.state.all("billing.meter_event")] == ["40"]
    standin.sender.deliver()
    billing_actions.process_events()
    billing_actions.reconcile()  # nobody stumbles over a tenant without keys
    assert left(acme) == STAYING
    with scope(acme):
        assert Subscription.objects.of(acme).get().status == "canceled"


@pytest.mark.slow
def test_what_a_restore_brought_back_is_erased_again(
    people: Any, acme: Any, globex: Any, settings: Any, tmp_path: Path
) -> None:
    """A database from before the request, and the tombstone that lies outside of it."""
    settings.TOMBSTONES_DIR = tmp_path
    sealed = vault.put(acme, "upload", b"planted")
    plant(acme, people.user("bob"))
    neighbour = state_of(globex)
    now = datetime.now(UTC)
    line = tombstones._line(tombstones._row(acme.pk, "tenant", "", now))
    exported.append(tmp_path, [line], at=now)
    assert vault.get(sealed) == b"planted"
    tombstones.replay()
    vault_keys.forget()
    assert left(acme) == STAYING
    with scope(acme):
        assert Tenant.objects.get(pk=acme.pk).slug == f"deleted-{acme.pk.hex}"
    tenant_erasing.run(acme.pk)
    assert list(vault.store().list(str(acme.pk))) == []
    assert state_of(globex) == neighbour
    assert tombstones.replay() == 0
    tombstones.replay(everything=True)


def test_rows_from_an_older_backup_than_their_tombstone(acme: Any) -> None:
    due(acme)
    tenant_erasing.run(acme.pk)
    with transaction.atomic(using="migrator"), connections["migrator"].cursor() as cursor:
        cursor.execute("SELECT set_config('app.tenant_id', %s, true)", [str(acme.pk)])
        cursor.execute("DELETE FROM tenants_tenanterasure")
        cursor.execute(
            "UPDATE tenants_tenant SET state = 'active', name = %s, slug = %s", [acme.name, acme.slug]
        )
    erase_tenants()
    with scope(acme):
        assert Tenant.objects.get(pk=acme.pk).state == "erased"
        assert Tenant.objects.get(pk=acme.pk).name == tenant_erasing.NAME


def test_what_is_written_late_goes_with_the_last_look(acme: Any, people: Any) -> None:
    due(acme)
    tenant_erasing.run(acme.pk)
    plant(acme, people.user("bob"))  # by whoever began before
    tenant_erasing.run(acme.pk)
    assert left(acme) != STAYING
    with scope(acme):
        hour_ago = timezone.now() - timedelta(hours=2)
        TenantErasure.objects.of(acme).filter(state="erased").update(erased_at=hour_ago)
    assert acme.pk in tenant_erasing.waiting()
    tenant_erasing.run(acme.pk)
    assert left(acme) == STAYING
    assert row_of(acme).looked_at is not None


def test_a_tenant_whose_own_key_refuses_can_still_leave(acme: Any) -> None:
    sealed = vault.put(acme, "upload", b"planted")
    with scope(acme):
        DataKey.objects.of(acme).update(is_refused=True)
    with pytest.raises(vault.KeysAway):
        vault.get(sealed)
    due(acme)
    tenant_erasing.run(acme.pk)
    assert row_of(acme).state == "erased"
    assert left(acme) == STAYING - {"billing_subscription", "billing_usageevent"}


def test_a_living_tenants_log_cannot_be_cut(acme: Any) -> None:
    """The right to delete bites only where the keys are gone, which nobody can take back."""
    with scope(acme), connection.cursor() as cursor:
        cursor.execute("DELETE FROM tenants_auditentry")
        assert cursor.rowcount == 0
        tombstones.note(acme, "tenant", "")
        cursor.execute("DELETE FROM tenants_auditentry")
        assert cursor.rowcount == 0
        transaction.set_rollback(True)
    with scope(acme), connection.cursor() as cursor:
        vault.shred_tenant(acme)
        cursor.execute("DELETE FROM tenants_auditentry")
        assert cursor.rowcount > 0
        transaction.set_rollback(True)


def test_operators_erase_by_command(acme: Any, settings: Any) -> None:
    ask = {"slug": acme.slug, "reason": "The contract ended"}
    with pytest.raises(CommandError, match="not its slug"):
        call_command("erase_tenant", **ask, confirm="else")
    with pytest.raises(CommandError, match="no tenant"):
        call_command("erase_tenant", slug="nobody-here", reason="x", confirm="nobody-here")
    said = StringIO()
    call_command("erase_tenant", **ask, confirm=acme.slug, stdout=said)
    assert "will be deleted on" in said.getvalue()
    with pytest.raises(CommandError, match="before"):
        call_command("erase_tenant", **ask, confirm=acme.slug)
    said = StringIO()
    call_command("erase_tenant", **ask, confirm=acme.slug, now=True, stdout=said)
    assert said.getvalue().startswith("Deleted.")
    assert row_of(acme).state == "erased"
