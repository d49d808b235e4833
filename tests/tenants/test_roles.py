"""Roles: what viewers, members, owners and strangers may do on a tenant's pages."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from saas.lib.errors import Conflict
from tenants import actions
from tenants.audit import SYSTEM
from tenants.models import ApiKey, AuditEntry, Invite, Member, Tenant
from tenants.scope import scope

PAGES = ("team/", "keys/", "audit/", "audit/export.jsonl", "audit/head.json", "settings/")


def member_of(tenant: Tenant, user: Any) -> Member:
    with scope(tenant):
        return Member.objects.of(tenant).select_related("user", "tenant").get(user=user)


def entries(tenant: Tenant, action: str) -> int:
    with scope(tenant):
        return AuditEntry.objects.of(tenant).filter(action=action).count()


@pytest.fixture
def ids(acme: Any, people: Any) -> dict[str, str]:
    """Ids of a key, an invitation and a member of acme."""
    people.key(acme)
    people.join(acme, "dora", "member")
    with scope(acme):
        invite, _token = actions.invite_member(acme, SYSTEM, "new@example.test", "viewer")
        key = ApiKey.objects.of(acme).get()
    return {
        "key": key.public_id,
        "invite": str(invite.pk),
        "dora": str(member_of(acme, people.user("dora")).pk),
    }


CHANGES = [
    # path, form, the least role that may
    ("team/", {"email": "x@example.test", "role": "viewer"}, "owner"),
    ("team/{dora}/role/", {"role": "viewer"}, "owner"),
    ("team/{dora}/remove/", {}, "owner"),
    ("invites/{invite}/withdraw/", {}, "owner"),
    ("settings/", {"name": "Renamed"}, "owner"),
    ("keys/", {"name": "k", "scopes": ["models"], "days": ""}, "member"),
    ("keys/{key}/revoke/", {}, "member"),
    ("tickets/", {}, "viewer"),
]
RANK = {"viewer": 0, "member": 1, "owner": 2}
CAST = {"vera": "viewer", "bob": "member", "alice": "owner"}


@pytest.mark.parametrize("name", list(CAST))
@pytest.mark.parametrize(("path", "form", "least"), CHANGES, ids=[path for path, _form, _least in CHANGES])
def test_it_works(
    acme: Any, people: Any, ids: dict[str, str], name: str, path: str, form: dict[str, Any], least: str
) -> None:
    with scope(acme):
        before = AuditEntry.objects.of(acme).count()
    answer = people.browser(name).post(f"/t/{acme.slug}/" + path.format(**ids), form)
    allowed = RANK[CAST[name]] >= RANK[least]
    assert answer.status_code in ((200, 302) if allowed else (403,))
    with scope(acme):
        written = AuditEntry.objects.of(acme).count() - before
    assert written == (1 if allowed and path != "tickets/" else 0)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", list(CAST))
def test_every_member_reads_every_page(acme: Any, people: Any, name: str, page: str) -> None:
    assert people.browser(name).get(f"/t/{acme.slug}/{page}").status_code == 200


def test_a_stranger_gets_the_answer_for_a_tenant_that_does_not_exist(
    acme: Any, carol: Client, ids: dict[str, str]
) -> None:
    for path, form, _least in CHANGES:
        target = path.format(**ids)
        theirs, nobodys = (carol.post(f"/t/{slug}/{target}", form) for slug in (acme.slug, "no-such-tenant"))
        assert theirs.status_code == nobodys.status_code == 404
    for page in PAGES:
        assert carol.get(f"/t/{acme.slug}/{page}").status_code == 404
    assert Client().get(f"/t/{acme.slug}/team/").status_code == 302  # signed out: to the sign-in page
    with scope(acme):
        assert Invite.objects.of(acme).count() == 1
        assert ApiKey.objects.of(acme).filter(revoked_at=None).count() == 1


def test_ids_of_another_tenant_are_unknown_in_ones_own(
    acme: Any, globex: Any, carol: Client, ids: dict[str, str]
) -> None:
    for path in (
        "team/{dora}/role/",
        "team/{dora}/remove/",
        "invites/{invite}/withdraw/",
        "keys/{key}/revoke/",
    ):
        answer = carol.post(f"/t/{globex.slug}/" + path.format(**ids), {"role": "viewer"})
        assert answer.status_code == 404


def test_changes_by_get_are_refused(acme: Any, alice: Client, ids: dict[str, str]) -> None:
    for path, _form, _least in CHANGES:
        if path.count("/") > 1 or path == "tickets/":
            assert alice.get(f"/t/{acme.slug}/" + path.format(**ids)).status_code == 405


def test_the_last_owner_stays(acme: Any, people: Any, alice: Client) -> None:
    owner = member_of(acme, people.user("alice"))
    for path, form in ((f"team/{owner.pk}/role/", {"role": "member"}), (f"team/{owner.pk}/remove/", {})):
        assert alice.post(f"/t/{acme.slug}/{path}", form).status_code == 409
    with pytest.raises(Conflict), scope(acme):
        actions.remove_member(owner, actor=SYSTEM)
    bob = member_of(acme, people.user("bob"))
    assert alice.post(f"/t/{acme.slug}/team/{bob.pk}/role/", {"role": "owner"}).status_code == 302
    assert alice.post(f"/t/{acme.slug}/team/{owner.pk}/role/", {"role": "viewer"}).status_code == 302
    assert alice.post(f"/t/{acme.slug}/settings/", {"name": "Mine"}).status_code == 403
    assert entries(acme, "member.role_changed") == 2


def test_a_member_may_leave(acme: Any, people: Any, vera: Client) -> None:
    own = member_of(acme, people.user("vera"))
    assert vera.post(f"/t/{acme.slug}/team/{own.pk}/remove/").status_code == 302
    assert vera.get(f"/t/{acme.slug}/team/").status_code == 404


def test_the_switcher_shows_ones_own_tenants(acme: Any, globex: Any, people: Any, bob: Client) -> None:
    people.join(globex, "bob", "viewer")
    page = bob.get("/tenants/").content.decode()
    assert acme.name in page
    assert globex.name in page
    inside = bob.get(f"/t/{acme.slug}/team/").content.decode()
    assert f"/t/{globex.slug}/" in inside
    assert globex.slug not in people.browser("vera").get("/tenants/").content.decode()


def test_another_tenant_is_made_and_owned(people: Any, bob: Client) -> None:
    answer = bob.post("/tenants/new/", {"name": f"Second {people.tag}", "pack": "retail"})
    assert answer.status_code == 302
    assert answer["Location"] == f"/t/second-{people.tag}/"
    again = bob.post("/tenants/new/", {"name": f"Second {people.tag}", "pack": "retail"})
    assert again["Location"] == f"/t/second-{people.tag}-2/"
    assert bob.get(f"/t/second-{people.tag}/settings/").status_code == 200
    assert bob.post("/tenants/new/", {"name": "x", "pack": "nonsense"}).status_code == 200  # the form again


def test_a_refusal_says_what_to_do(acme: Any, bob: Client) -> None:
    page = bob.post(f"/t/{acme.slug}/settings/", {"name": "x"})
    assert page.status_code == 403
    assert "Ask an owner" in page.content.decode()
