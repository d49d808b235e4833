"""Puts a vertical's sample data into a tenant, the same way as an upload."""

from __future__ import annotations

from collections.abc import Iterable

from modeling.actions.files import add_file
from modeling.models import File
from modeling.packs.base import Sample
from tenants import vault
from tenants.audit import Actor
from tenants.models import Tenant
from tenants.scope import scope


def add_samples(tenant: Tenant, actor: Actor, samples: Iterable[Sample]) -> list[File]:
    """Build, encrypt and hand over each sample for inspection; opens its own scopes. Refuses as `add_file` does."""
    files = []
    for sample in samples:
        content = sample.build()
        with vault.create(tenant, "upload") as writer:
            writer.write(content)
            with scope(tenant):
                files.append(
                    add_file(tenant, actor, name=sample.filename, purpose=sample.purpose, writer=writer)
                )
    return files
