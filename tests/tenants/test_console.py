"""The operators' console: who gets in, what it shows, and what neither it nor its role can read."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from django.db import ProgrammingError, connections, transaction
from django.test import Client
from django.utils import timezone

from billing.models import UsageEvent
from modeling.models import File, Job, Worker
from tenants import access
from tenants.models import ApiKey, AuditEntry, DataKey, Member, Tenant
from tenants.scope import scope

HIDDEN = [
    "tenants_datakey",
    "tenants_objectkey",
    "tenants_apikeysecret",
    "tenants_apikey",
    "tenants_vaultobject",
    "tenants_invite",
    "tenants_auditentry",
    "modeling_file",
    "modeling_dataset",
    "modeling_datasetversion",
    "modeling_datasetkey",
    "modeling_unitkey",
    "modeling_modelversion",
    "modeling_jobevent",
    "modeling_privacyentry",
    "modeling_endpoint",
]


@pytest.fixture
def operator(people: Any) -> Client:
    """A signed-in operator with a second factor."""
    user = people.user("olga")
    user.is_staff = True
    user.save()
    Authenticator.objects.create(user=user, type=Authenticator.Type.TOTP, data={"secret": "x"})
    return people.browser("olga")  # type: ignore[no-any-return]


def test_it_works(operator: Client, acme: Any) -> None:
    front = operator.get("/console/")
    assert front.status_code == 200
    words = front.content.decode()
    for word in ("Workers and leases", "Queue", "Tenants", "Usage this month"):
        assert word in words


@pytest.mark.parametrize(
    "page",
    [
        "tenants/tenant",
        "tenants/user",
        "tenants/member",
        "tenants/tenanterasure",
        "modeling/worker",
        "modeling/job",
        "billing/subscription",
        "billing/usageevent",
    ],
)
def test_lists_load_and_change_nothing(operator: Client, acme: Any, page: str) -> None:
    assert operator.get(f"/console/{page}/").status_code == 200
    assert operator.get(f"/console/{page}/", {"q": "acme"}).status_code == 200
    assert operator.get(f"/console/{page}/add/").status_code == 403


def test_detail_pages_load(operator: Client, acme: Any, people: Any) -> None:
    found = Member.objects.everywhere().filter(tenant_id=acme.pk)[0]
    for page in (
        f"tenants/tenant/{acme.pk}",
        f"tenants/user/{people.user('alice').pk}",
        f"tenants/member/{found.pk}",
    ):
        assert operator.get(f"/console/{page}/change/").status_code == 200
        assert operator.post(f"/console/{page}/change/", {"role": "owner"}).status_code == 403


def test_a_running_job_shows_times_and_states_and_nothing_the_tenant_wrote(
    operator: Client, acme: Any
) -> None:
    now = timezone.now()
    with scope(acme):
        file = File.objects.of(acme).create(name="canary-file.csv", purpose="fine-tune", size_bytes=1)
        job = Job.objects.of(acme).create(
            file=file, state="running", epoch=1, lease_until=now - timedelta(minutes=1), worker="w",
            unit="canary-column", spec={"labels": ["canary-label"]}, suffix="canary-suffix",
        )  # fmt: skip
        UsageEvent.objects.of(acme).create(kind="tokens", quantity=12, request_id="r", at=now)
    worker = Worker.objects.create(
        name=f"w-{job.pk}", kind="train", host="h", pid=1, heartbeat_at=now, job_id=job.pk
    )
    pages = [
        "",
        "modeling/job/",
        f"modeling/job/{job.pk}/change/",
        f"modeling/worker/{worker.pk}/change/",
        "billing/usageevent/",
    ]
    shown = [operator.get(f"/console/{page}").content.decode() for page in pages]
    assert all(job.public_id in page for page in shown[:3])
    assert "has run out" in shown[0]
    assert worker.name in shown[0]
    assert "canary" not in "".join(shown)
    with scope(acme):
        Job.objects.of(acme).filter(pk=job.pk).update(state="cancelled", finished_at=now)


def test_nobody_else_gets_in(people: Any, alice: Client, acme: Any) -> None:
    assert Client().get("/console/", follow=True).redirect_chain[-1][0].startswith("/accounts/login/")
    assert alice.get("/console/", follow=True).status_code == 404
    password = Client().post("/console/login/", {"username": people.user("alice").email, "password": "x"})
    assert password.status_code == 302
    assert password["Location"].startswith("/accounts/login/")


def test_an_operator_without_a_second_factor_is_sent_to_set_one_up(people: Any) -> None:
    user = people.user("otto")
    user.is_staff = True
    user.save()
    answer = people.browser("otto").get("/console/", follow=True)
    assert any("2fa/totp/activate" in url for url, _status in answer.redirect_chain)
    assert "Workers and leases" not in answer.content.decode()


def test_suspending_and_restoring_takes_a_reason(
    operator: Client, alice: Client, acme: Any, people: Any
) -> None:
    secret = people.key(acme)
    base = f"/console/tenants/tenant/{acme.pk}"
    assert operator.get(f"{base}/change/").status_code == 200
    assert operator.get(f"{base}/suspend/").status_code == 200
    assert operator.post(f"{base}/suspend/", {"reason": ""}).status_code == 200
    assert access.authenticate_key(secret)
    assert operator.post(f"{base}/suspend/", {"reason": "abuse report 12"}).status_code == 302
    with scope(acme):
        assert Tenant.objects.get(pk=acme.pk).state == "suspended"
        entry = AuditEntry.objects.of(acme).order_by("-seq")[0]
    assert (entry.action, entry.actor_kind, entry.details) == (
        "tenant.suspended",
        "operator",
        {"reason": "abuse report 12"},
    )
    assert "abuse report 12" in operator.get("/console/").content.decode()
    told = alice.get(f"/t/{acme.slug}/")
    assert told.status_code == 403
    assert 'href="/tenants/"' in told.content.decode()  # "/" would lead an owner of one tenant back to here
    assert operator.post(f"{base}/restore/", {"reason": "resolved"}).status_code == 302
    assert access.authenticate_key(secret)
    assert operator.post(f"{base}/delete/").status_code in (403, 404)


def test_strangers_cannot_suspend(alice: Client, globex: Any) -> None:
    alice.post(f"/console/tenants/tenant/{globex.pk}/suspend/", {"reason": "x"})
    with scope(globex):
        assert Tenant.objects.get(pk=globex.pk).state == "active"


def test_no_page_shows_key_material_or_password_hashes(operator: Client, acme: Any, people: Any) -> None:
    secret = people.key(acme)
    user = people.user("alice")
    with scope(acme):
        wrapped = [bytes(row.wrapped).hex() for row in DataKey.objects.of(acme)]
        name = ApiKey.objects.of(acme).get().public_id
    pages = [
        "",
        f"tenants/tenant/{acme.pk}/change/",
        f"tenants/user/{user.pk}/change/",
        "tenants/user/",
        "tenants/member/",
    ]
    shown = "".join(operator.get(f"/console/{page}").content.decode() for page in pages)
    assert user.email in shown
    assert acme.slug in shown
    assert len(wrapped) == 2
    for word in (secret, *wrapped, name, user.password):
        assert word not in shown


@pytest.mark.parametrize("table", HIDDEN)
def test_the_operator_role_is_denied(table: str) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic(using="operator"):
        connections["operator"].cursor().execute(f"SELECT 1 FROM {table} LIMIT 1")


def test_the_operator_role_reads_what_it_should(acme: Any) -> None:
    with connections["operator"].cursor() as cursor:  # control
        cursor.execute("SELECT count(*) FROM tenants_tenant")
        assert cursor.fetchone()[0] >= 1
        cursor.execute("SELECT count(id), count(state) FROM modeling_job")
    columns = [("modeling_job", name) for name in ("recipe", "spec", "plan", "error")] + [
        ("tenants_user", "password")
    ]
    for table, column in columns:
        with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic(using="operator"):
            connections["operator"].cursor().execute(f"SELECT {column} FROM {table}")
    for statement in (
        "UPDATE tenants_tenant SET state = 'suspended'",
        "DELETE FROM tenants_member",
        "INSERT INTO tenants_user (id) VALUES (gen_random_uuid())",
    ):
        with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic(using="operator"):
            connections["operator"].cursor().execute(statement)
