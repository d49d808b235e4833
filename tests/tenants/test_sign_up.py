"""Sign-up and sign-in by e-mail, the first tenant, the second factor's pages, and invitations."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.test import Client
from django.utils import timezone

from tenants.models import AuditEntry, DataKey, Invite, Member, Tenant, User
from tenants.scope import OPERATOR, scope
from tests.make import PASSWORD


@pytest.fixture(autouse=True)
def outbox(settings: Any) -> None:
    """Mail stays in memory."""
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    settings.RATELIMIT_ENABLE = False
    settings.ACCOUNT_RATE_LIMITS = {}
    mail.outbox = []


def sign_up(client: Client, email: str, **form: str) -> Any:
    content = {
        "email": email,
        "password1": PASSWORD,
        "name": "Zoë",
        "tenant_name": "Zoë’s Clinic",
        "pack": "medical",
    }
    return client.post("/accounts/signup/", content | form)


def tenants_of(email: str) -> list[Tenant]:
    user = User.objects.get(email=email)
    return [found.tenant for found in Member.objects.everywhere().filter(user=user).select_related("tenant")]


def test_it_works(people: Any) -> None:
    client, email = Client(), f"zoe-{people.tag}@example.test"
    answer = sign_up(client, email, tenant_name=f"Zoë Clinic {people.tag}")
    slug = f"zoe-clinic-{people.tag}"
    assert answer.status_code == 302
    assert answer["Location"] == f"/t/{slug}/"
    user = User.objects.get(email=email)
    assert user.name == "Zoë"
    assert user.check_password(PASSWORD)
    (tenant,) = tenants_of(email)
    assert (tenant.slug, tenant.pack, tenant.state) == (slug, "medical", "active")
    with scope(tenant):
        assert Member.objects.of(tenant).get().role == "owner"
        assert DataKey.objects.of(tenant).count() == 2  # what others are derived from, and what wraps
        assert list(AuditEntry.objects.of(tenant).order_by("seq").values_list("action", flat=True)) == [
            "tenant.created",
            "member.added",
        ]
    assert client.get(f"/t/{slug}/team/").status_code == 200


def test_the_address_is_verified_by_mail(people: Any) -> None:
    client, email = Client(), f"zoe-{people.tag}@example.test"
    sign_up(client, email, tenant_name=f"Clinic {people.tag}")
    assert not EmailAddress.objects.get(email=email).verified
    (sent,) = [message for message in mail.outbox if email in message.to]
    found = re.search(r"/accounts/confirm-email/[^/\s]+/", sent.body)
    assert found is not None
    assert client.get(found.group()).status_code == 200
    assert client.post(found.group()).status_code == 302
    assert EmailAddress.objects.get(email=email).verified


def test_where_mail_is_when_it_goes_nowhere(people: Any, settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
    client, slug = Client(), f"clinic-{people.tag}"
    settings.DEMO = False
    sign_up(client, f"zoe-{people.tag}@example.test", tenant_name=f"Clinic {people.tag}")
    page = client.get(f"/t/{slug}/").content.decode()
    assert "No mail server is set up here" in page
    assert str(settings.DATA_DIR) not in page
    settings.DEMO = True
    client.post(f"/t/{slug}/team/", {"email": f"yan-{people.tag}@example.test", "role": "member"})
    assert str(settings.DATA_DIR / "logs" / "web.log") in client.get(f"/t/{slug}/team/").content.decode()


def test_names_cannot_reorder_the_text_around_them(people: Any) -> None:
    client = Client()
    name = f"\u202eO'Neill\u202c \u2066\u05e2\u05e0\u05ea\u2069 {people.tag}"
    sign_up(client, f"zoe-{people.tag}@example.test", tenant_name=name)
    (tenant,) = tenants_of(f"zoe-{people.tag}@example.test")
    assert tenant.name == f"O'Neill \u05e2\u05e0\u05ea {people.tag}"


def test_signing_in_and_out(people: Any, acme: Any) -> None:
    client, email = Client(), people.user("alice").email
    wrong = client.post("/accounts/login/", {"login": email, "password": "wrong-password"})
    assert wrong.status_code == 200
    assert "_auth_user_id" not in client.session
    right = client.post("/accounts/login/", {"login": email.upper(), "password": PASSWORD})
    assert right.status_code == 302
    assert right["Location"] == f"/t/{acme.slug}/"
    client.post("/accounts/logout/")
    assert client.get(f"/t/{acme.slug}/team/").status_code == 302


@pytest.mark.parametrize("path", ["/accounts/login/", "/accounts/signup/", "/accounts/password/reset/"])
def test_signed_out_pages_load(path: str) -> None:
    page = Client().get(path)
    assert page.status_code == 200
    assert b"<script>" not in page.content
    assert b"style=" not in page.content


@pytest.mark.parametrize("path", ["/accounts/email/", "/accounts/password/change/", "/accounts/2fa/"])
def test_account_pages_load(path: str, alice: Client) -> None:
    assert alice.get(path).status_code == 200


def test_a_weak_password_or_missing_tenant_is_refused(people: Any) -> None:
    email = f"zoe-{people.tag}@example.test"
    for form in ({"password1": "short"}, {"tenant_name": ""}, {"pack": "nonsense"}):
        assert sign_up(Client(), email, **form).status_code == 200
    assert not User.objects.filter(email=email).exists()


def test_a_taken_address_makes_no_second_account(people: Any, acme: Any) -> None:
    before = Tenant.objects.using(OPERATOR).count()
    answer = sign_up(Client(), people.user("alice").email.upper(), tenant_name=f"Thief {people.tag}")
    assert answer.status_code == 200
    assert answer.context["form"].errors["email"]
    assert Tenant.objects.using(OPERATOR).count() == before
    assert User.objects.filter(email=people.user("alice").email).count() == 1


def test_a_name_without_latin_letters_gets_a_slug(people: Any) -> None:
    email = f"zoe-{people.tag}@example.test"
    assert sign_up(Client(), email, tenant_name="诊所").status_code == 302
    (tenant,) = tenants_of(email)
    assert re.fullmatch(r"tenant(-[a-z0-9]+)?", tenant.slug)
    assert tenant.name == "诊所"


def invited(acme: Any, alice: Client, email: str, role: str = "member") -> str:
    """Invite through the page; the path of the link in the mail."""
    assert alice.post(f"/t/{acme.slug}/team/", {"email": email, "role": role}).status_code == 302
    (sent,) = [message for message in mail.outbox if email in message.to]
    found = re.search(r"/invites/\w+/", sent.body)
    assert found is not None
    return found.group()


def test_an_invited_stranger_signs_up_and_joins(acme: Any, alice: Client, people: Any) -> None:
    email = f"new-{people.tag}@example.test"
    link = invited(acme, alice, email)
    token = link.split("/")[2]
    with scope(acme):
        assert Invite.objects.of(acme).filter(token_hash__contains=token).count() == 0
    client = Client()
    page = client.get(link)
    assert page.status_code == 200
    assert acme.name in page.content.decode()
    assert b"tenant_name" not in client.get("/accounts/signup/").content
    answer = client.post(
        "/accounts/signup/", {"email": email, "password1": PASSWORD, "name": "", "next": link}
    )
    assert answer["Location"] == link
    assert client.get(link).status_code == 200
    assert client.post(link)["Location"] == f"/t/{acme.slug}/"
    assert tenants_of(email) == [acme]
    with scope(acme):
        assert Member.objects.of(acme).get(user__email=email).role == "member"
    assert client.post(link).status_code == 404  # it works once


def test_an_invitation_is_for_its_address_only(acme: Any, alice: Client, carol: Client, people: Any) -> None:
    link = invited(acme, alice, f"new-{people.tag}@example.test", "owner")
    assert carol.get(link).status_code == 200
    assert carol.post(link).status_code == 403
    assert carol.get(f"/t/{acme.slug}/team/").status_code == 404


def test_expired_withdrawn_and_unknown_invitations_look_the_same(
    acme: Any, alice: Client, carol: Client, people: Any
) -> None:
    email = people.user("carol").email
    expired = invited(acme, alice, email)
    with scope(acme):
        Invite.objects.of(acme).update(expires_at=timezone.now() - timedelta(seconds=1))
    mail.outbox.clear()
    withdrawn = invited(acme, alice, email)
    with scope(acme):
        pk = Invite.objects.of(acme).get().pk
    assert alice.post(f"/t/{acme.slug}/invites/{pk}/withdraw/").status_code == 302
    answers = [carol.post(link) for link in (expired, withdrawn, "/invites/unknown/")]
    assert {answer.status_code for answer in answers} == {404}
    assert (
        alice.post(f"/t/{acme.slug}/team/", {"email": people.user("bob").email, "role": "viewer"}).status_code
        == 409
    )


def test_demo_people_get_in_only_while_the_demo_is_on(settings: Any) -> None:
    from tenants.demo import OPERATOR_EMAIL
    from tenants.demo import PASSWORD as PRINTED

    User.objects.filter(email=OPERATOR_EMAIL).delete()
    User.objects.create_user(OPERATOR_EMAIL, PRINTED, is_staff=True)
    form = {"login": OPERATOR_EMAIL, "password": PRINTED}
    settings.DEMO = False
    assert Client().post("/accounts/login/", form).status_code == 200
    settings.DEMO = True
    assert Client().post("/accounts/login/", form).status_code == 302
    User.objects.filter(email=OPERATOR_EMAIL).delete()


def test_the_link_for_a_new_password_ignores_the_host_header(people: Any, settings: Any) -> None:
    settings.PUBLIC_URL = "https://cloister.example"
    email = people.user("alice").email
    Client(headers={"host": "localhost"}).post("/accounts/password/reset/", {"email": email})
    (link,) = re.findall(r"https?://\S+", mail.outbox[-1].body)
    assert link.startswith("https://cloister.example/accounts/password/reset/key/")
    assert Client().get(link.removeprefix("https://cloister.example")).status_code == 302
