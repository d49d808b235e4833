"""Makes the cast: alice owns acme, bob is a member, vera a viewer; carol owns globex."""

from __future__ import annotations

import json
import secrets
from functools import cached_property
from typing import Any

from allauth.account.models import EmailAddress
from django.test import Client

from tenants import actions
from tenants.audit import Actor
from tenants.models import Member, Tenant, User
from tenants.scope import scope

PASSWORD = "a-long-password-for-tests"


class Api:
    """Speaks /v1 with a key, JSON in and out."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.client = Client(headers={"authorization": f"Bearer {key}"}, raise_request_exception=True)

    def get(self, path: str, **query: Any) -> Any:
        """GET."""
        return self.client.get(path, query)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        """POST a JSON body."""
        return self.client.post(
            path, json.dumps(body if body is not None else {}), "application/json", headers=headers
        )

    def delete(self, path: str) -> Any:
        """DELETE."""
        return self.client.delete(path)

    def upload(self, name: str, content: bytes, purpose: str = "fine-tune") -> Any:
        """Upload a file as multipart form data."""
        from django.core.files.uploadedfile import SimpleUploadedFile

        return self.client.post("/v1/files", {"purpose": purpose, "file": SimpleUploadedFile(name, content)})


class People:
    """One cast per test: names carry a random tag, so tests never meet."""

    def __init__(self) -> None:
        self.tag = secrets.token_hex(4)

    def user(self, name: str) -> User:
        """A person with a confirmed address."""
        email = f"{name}-{self.tag}@example.test"
        found = User.objects.filter(email=email).first()
        if found is None:
            found = User.objects.create_user(email, PASSWORD, name=name.title())
            EmailAddress.objects.create(user=found, email=email, verified=True, primary=True)
        return found

    @cached_property
    def acme(self) -> Tenant:
        """Medical; alice, bob, vera."""
        tenant = actions.create_tenant(self.user("alice"), f"Acme {self.tag}", "medical")
        self.join(tenant, "bob", "member")
        self.join(tenant, "vera", "viewer")
        return tenant

    @cached_property
    def globex(self) -> Tenant:
        """Finance; carol."""
        return actions.create_tenant(self.user("carol"), f"Globex {self.tag}", "finance")

    def join(self, tenant: Tenant, name: str, role: str) -> Member:
        """Make a person a member."""
        with scope(tenant):
            return Member.objects.of(tenant).create(user=self.user(name), role=role)

    def browser(self, name: str) -> Client:
        """A signed-in Django test client."""
        _ = self.acme, self.globex
        client = Client()
        client.force_login(self.user(name), backend="django.contrib.auth.backends.ModelBackend")
        return client

    def key(self, tenant: Tenant, *scopes: str) -> str:
        """A fresh API key's secret."""
        with scope(tenant):
            _, secret = actions.issue_key(
                tenant, "tests", list(scopes or ("all",)), Actor("system", "tests", "tests")
            )
        return secret

    def api(self, tenant: str, *scopes: str) -> Api:
        """A /v1 client for acme or globex."""
        return Api(self.key(getattr(self, tenant), *scopes))
