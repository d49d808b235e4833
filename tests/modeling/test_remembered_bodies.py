"""What is kept of a request that may come again does not let anyone guess whom it named."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from modeling.actions import remembering
from modeling.models import RememberedAnswer
from tenants.scope import scope


def test_a_body_is_remembered_under_a_key_of_the_tenant(acme: Any, globex: Any) -> None:
    body = {"mode": "remove", "units": ["patient-17"]}
    kept = set()
    for tenant in (acme, globex):
        with scope(tenant):
            for _again in range(2):
                assert remembering.once(tenant, "k", "p", body, lambda: (200, {})) == (200, {})
            kept.add(RememberedAnswer.objects.of(tenant).get().body_digest)
    plain = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    assert len(kept) == 2
    assert plain not in kept
