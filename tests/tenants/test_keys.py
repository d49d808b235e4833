"""API keys: form and checksum, what is stored, scopes, expiry, and one 401 for everything unknown."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.http import HttpRequest
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.response import Response

from saas.lib.errors import Forbidden, Refusal, Unauthenticated
from tenants import access, actions, keys
from tenants.access import authenticate_key
from tenants.audit import SYSTEM, Actor
from tenants.models import ApiKey, ApiKeySecret, AuditEntry, Member
from tenants.scope import current, scope


class FilesView(access.TenantAPIView):
    """A view that asks for the scope `files`."""

    scope_name = "files"

    def get(self, request: Any) -> Response:
        """Who is asking, and in whose scope."""
        return Response({"tenant": str(current()), "key": request.auth.key_id})


def ask(header: str | None) -> Response:
    factory = RequestFactory()
    request: HttpRequest = factory.get(
        "/v1/x", headers={"authorization": header} if header is not None else None
    )
    response = FilesView.as_view()(request)
    assert isinstance(response, Response)
    return response


def test_it_works(acme: Any, people: Any) -> None:
    secret = people.key(acme, "files")
    caller = access.authenticate_key(secret)
    assert (caller.tenant, caller.scopes, caller.kind) == (acme, frozenset({"files"}), "key")
    assert ask(f"Bearer {secret}").data == {"tenant": str(acme.pk), "key": caller.key_id}
    assert current() is None


def test_form_and_checksum() -> None:
    made = {keys.make_key() for _ in range(200)}
    assert len(made) == 200
    for key in made:
        assert key.startswith("ck_live_")
        assert len(key) == 8 + 40 + 6
        assert keys.is_well_formed(key)
    key = made.pop()
    for at in range(len(key)):
        other = "x" if key[at] != "x" else "y"
        assert not keys.is_well_formed(key[:at] + other + key[at + 1 :])
    for wrong in ("", key[:-1], key + "0", key.upper(), key.replace("ck_live_", "sk_live_"), "ключ" * 14):
        assert not keys.is_well_formed(wrong)


def test_a_malformed_key_never_reaches_the_database(acme: Any, people: Any) -> None:
    secret = people.key(acme)
    with CaptureQueriesContext(connection) as asked, pytest.raises(Unauthenticated):
        access.authenticate_key(secret[:-1] + ("a" if secret[-1] != "a" else "b"))
    assert len(asked) == 0
    with CaptureQueriesContext(connection) as asked:  # control
        access.authenticate_key(secret)
    assert len(asked) > 0


def test_only_a_keyed_digest_is_stored(acme: Any, people: Any, settings: Any) -> None:
    secret = people.key(acme)
    with scope(acme):
        row = ApiKeySecret.objects.of(acme).get()
        assert row.digest == keys.digest(secret)
        assert secret not in str(vars(ApiKey.objects.of(acme).get()))
    settings.KEY_PEPPER = "another"
    assert row.digest != keys.digest(secret)
    with pytest.raises(Unauthenticated):
        access.authenticate_key(secret)


def test_one_body_for_every_key_that_does_not_work(acme: Any, people: Any) -> None:
    revoked, expired = people.key(acme), people.key(acme)
    with scope(acme):
        newest = list(ApiKey.objects.of(acme).select_related("tenant").order_by("-id")[:2])
        actions.revoke_key(newest[1], actor=SYSTEM)
        past = timezone.now() - timedelta(seconds=1)
        ApiKey.objects.of(acme).filter(pk=newest[0].pk).update(expires_at=past)
    headers = [
        None,
        "",
        "Bearer",
        "Bearer nonsense",
        "Basic abc",
        f"Bearer {keys.make_key()}",
        f"Bearer {revoked}",
        f"Bearer {expired}",
    ]
    answers = [ask(header) for header in headers]
    assert {answer.status_code for answer in answers} == {401}
    assert all(answer.data == answers[0].data for answer in answers)
    assert all(answer["WWW-Authenticate"] == "Bearer" for answer in answers)
    assert answers[0].data["error"]["code"] == "invalid_api_key"


def test_scopes_are_enforced(acme: Any, people: Any) -> None:
    assert ask(f"Bearer {people.key(acme, 'files', 'train')}").status_code == 200
    assert ask(f"Bearer {people.key(acme, 'all')}").status_code == 200
    answer = ask(f"Bearer {people.key(acme, 'predict')}")
    assert answer.status_code == 403
    assert answer.data["error"]["code"] == "missing_scope"


@pytest.mark.parametrize(
    ("name", "scopes"), [("", ["all"]), ("x" * 81, ["all"]), ("ok", []), ("ok", ["root"])]
)
def test_a_key_needs_a_name_and_known_scopes(acme: Any, name: str, scopes: list[str]) -> None:
    with pytest.raises(Refusal), scope(acme):
        actions.issue_key(acme, name, scopes, SYSTEM)
    with pytest.raises(Refusal), scope(acme):
        actions.issue_key(acme, "late", ["all"], SYSTEM, expires_at=timezone.now())


def test_last_used_is_written_at_most_once_a_minute(acme: Any, people: Any) -> None:
    secret = people.key(acme)

    def last_used() -> Any:
        with scope(acme):
            return ApiKey.objects.of(acme).get().last_used_at

    access.authenticate_key(secret)
    first = last_used()
    access.authenticate_key(secret)
    assert first is not None
    assert last_used() == first
    with scope(acme):
        ApiKey.objects.of(acme).update(last_used_at=first - timedelta(seconds=61))
    access.authenticate_key(secret)
    assert last_used() > first


def test_the_page_shows_a_secret_once(acme: Any, alice: Client) -> None:
    page = alice.post(
        f"/t/{acme.slug}/keys/", {"name": "warehouse", "scopes": ["files", "predict"], "days": "90"}
    )
    assert page.status_code == 200
    secret = page.context["secret"]
    assert page.content.decode().count(secret) >= 1
    assert "no-store" in page["Cache-Control"]
    assert access.authenticate_key(secret).scopes == {"files", "predict"}
    again = alice.get(f"/t/{acme.slug}/keys/").content.decode()
    assert secret not in again
    assert "warehouse" in again


def test_a_page_sent_twice_makes_one_key(acme: Any, alice: Client) -> None:
    form = {"name": "warehouse", "scopes": ["predict"], "days": "90"}
    made = alice.post(f"/t/{acme.slug}/keys/", form)
    again = alice.post(f"/t/{acme.slug}/keys/", form)
    assert "secret" not in again.context
    assert "A working key has this name" in again.content.decode()
    alice.post(f"/t/{acme.slug}/keys/{made.context['made'].public_id}/revoke/")
    assert "secret" in alice.post(f"/t/{acme.slug}/keys/", form).context


def test_the_command_prints_a_working_key(acme: Any) -> None:
    out = StringIO()
    call_command("issue_key", tenant=acme.slug, scopes="all", stdout=out)
    assert access.authenticate_key(out.getvalue().strip()).tenant == acme
    for options in ({"tenant": "no-such-tenant"}, {"tenant": acme.slug, "scopes": "root"}):
        with pytest.raises(CommandError):
            call_command("issue_key", **options, stdout=out)


def test_a_handler_that_fails_leaves_nothing_written(acme: Any, people: Any) -> None:
    class Failing(access.TenantAPIView):
        """Writes, then refuses."""

        def post(self, request: Any) -> Response:
            actions.issue_key(request.auth.tenant, "written", ["all"], request.auth.actor)
            raise Forbidden("No.")

    secret = people.key(acme)
    response = Failing.as_view()(
        RequestFactory().post("/v1/x", headers={"authorization": f"Bearer {secret}"})
    )
    assert response.status_code == 403
    with scope(acme):
        assert ApiKey.objects.of(acme).filter(name="written").count() == 0


def test_keys_end_with_their_makers_membership(people: Any, acme: Any, alice: Client) -> None:
    bob, tag = people.user("bob"), people.tag
    with scope(acme):
        actor = Actor("user", str(bob.pk), bob.email)
        mine, secret = actions.issue_key(acme, f"bob's {tag}", ["all"], actor)
        other, kept = actions.issue_key(acme, f"somebody's {tag}", ["all"], SYSTEM)
        found = Member.objects.of(acme).get(user=bob)
    assert authenticate_key(secret).key_id == mine.public_id
    assert "stop working at once" in alice.get(f"/t/{acme.slug}/team/").content.decode()
    assert alice.post(f"/t/{acme.slug}/team/{found.pk}/remove/").status_code == 302
    with pytest.raises(Unauthenticated):
        authenticate_key(secret)
    assert authenticate_key(kept).key_id == other.public_id
    with scope(acme):
        revoked = AuditEntry.objects.of(acme).filter(action="key.revoked")
        assert [entry.object_id for entry in revoked] == [mine.public_id]


def test_only_owners_make_keys_that_read_the_prediction_log(alice: Client, bob: Client, acme: Any) -> None:
    page = f"/t/{acme.slug}/keys/"
    for browser, offers in ((alice, True), (bob, False)):
        content = browser.get(page).content.decode()
        assert all((f'value="{name}"' in content) is offers for name in ("predictions", "all"))
        for name in ("predictions", "all"):
            answer = browser.post(page, {"name": f"{name} {offers}", "scopes": [name], "days": "90"})
            assert ("secret" in answer.context) is offers
    assert "secret" in bob.post(page, {"name": "bob's", "scopes": ["models"], "days": "90"}).context
