"""The second factor: set up with an authenticator app, then asked for at every sign-in."""

from __future__ import annotations

import time
from typing import Any

import pytest
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from django.test import Client

from tests.make import PASSWORD


@pytest.fixture(autouse=True)
def quiet(settings: Any) -> None:
    """Mail stays in memory, and sign-ins are not counted."""
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    settings.ACCOUNT_RATE_LIMITS = {}
    settings.MFA_TOTP_TOLERANCE = 1  # a code works once: the sign-in uses the next one


def code(secret: str, *, steps: int = 0) -> str:
    """What the authenticator app shows; `steps` half minutes from now."""
    return str(format_hotp_value(hotp_value(secret, int(time.time()) // 30 + steps)))


def sign_in(client: Client, email: str) -> Any:
    return client.post("/accounts/login/", {"login": email, "password": PASSWORD})


def test_it_works(acme: Any, people: Any) -> None:
    email = people.user("alice").email
    client = Client()
    sign_in(client, email)
    client.post("/accounts/reauthenticate/", {"password": PASSWORD})
    page = client.get("/accounts/2fa/totp/activate/")
    assert page.status_code == 200
    assert b" style=" not in page.content
    secret = page.context["form"].secret
    wrong = client.post("/accounts/2fa/totp/activate/", {"code": "000000"})
    assert wrong.status_code == 200
    assert client.post("/accounts/2fa/totp/activate/", {"code": code(secret)}).status_code == 302
    client.post("/accounts/logout/")

    answer = sign_in(client, email)
    assert answer["Location"].startswith("/accounts/2fa/authenticate/")
    assert client.get(f"/t/{acme.slug}/team/").status_code == 302  # the password alone opens nothing
    client.post("/accounts/2fa/authenticate/", {"code": code(secret, steps=50)})
    assert client.get(f"/t/{acme.slug}/team/").status_code == 302
    done = client.post("/accounts/2fa/authenticate/", {"code": code(secret, steps=1)})
    assert done.status_code == 302
    assert client.get(f"/t/{acme.slug}/team/").status_code == 200


def test_setting_one_up_asks_for_the_password_again(alice: Client) -> None:
    answer = alice.get("/accounts/2fa/totp/activate/")
    assert answer.status_code == 302
    assert answer["Location"].startswith("/accounts/reauthenticate/")
