"""A key revoked while clients hammer the gateway: no success 5 s later, also where the message cannot come through."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenants import actions
from tenants.audit import SYSTEM
from tenants.models import ApiKey, Tenant
from tenants.scope import scope
from tests.modeling.test_jobs_start import pay_for
from tests.proofs.record import Proof
from tests.serving.gateway_process import GatewayProcess, Hammer, Proxy
from tests.serving.made import EngineProcess, head_parts
from tests.serving.speaking import make_version

pytestmark = [pytest.mark.slow, pytest.mark.real_weights]
ROUNDS = int(os.environ.get("REVOCATIONS", "5"))
CLIENTS = 16
ASKED_SECONDS = 5.0


def revoke_newest(tenant: Tenant) -> None:
    """The product's action, as the keys page calls it."""
    with scope(tenant):
        key = ApiKey.objects.of(tenant).filter(revoked_at=None).select_related("tenant").latest("pk")
        actions.revoke_key(key, actor=SYSTEM)


def last_success(hammer: Hammer, tenant: Tenant, *, watch: float) -> float:
    """Seconds from the revocation's commit to the last answer with 200; there is a load before and refusals after."""
    time.sleep(1.0)
    before = len(hammer.of(200))
    revoke_newest(tenant)
    revoked = time.monotonic()
    time.sleep(watch)
    hammer.stop()
    refused = [at for at, _ in hammer.of(401)]
    assert before > 50, "there was no load"
    assert len(refused) > 5, "nobody went on asking"
    late = max((at - revoked for at, _ in hammer.of(200)), default=0.0)
    assert min(refused) - revoked <= ASKED_SECONDS
    return max(late, 0.0)


@pytest.mark.parametrize("link", ["up", "cut", "frozen"])
def test_no_success_after_five_seconds(
    link: str, acme: Tenant, people: Any, tmp_path: Path, engine: EngineProcess, proof: Proof
) -> None:
    pay_for(acme, "business")
    model = make_version(acme, *head_parts(5, 1)).name
    body = json.dumps({"model": model, "inputs": ["a fracture of the wrist"]})
    begun, times = time.monotonic(), []
    with Proxy(os.environ["REDIS_URL"]).running() as valkey:
        break_link: dict[str, Callable[[], None]] = {
            "up": valkey.open,
            "cut": valkey.cut,
            "frozen": valkey.freeze,
        }
        gateway = GatewayProcess(tmp_path, engine.socket, REDIS_URL=valkey.address)
        try:
            gateway.wait()
            for _ in range(ROUNDS if link == "up" else max(1, ROUNDS // 5)):
                valkey.open()
                time.sleep(0.5 if link == "up" else 2.0)  # subscribed again
                hammer = Hammer(gateway.socket, people.key(acme, "predict"), body, CLIENTS)
                hammer.start()
                time.sleep(1.0)  # the key is remembered
                break_link[link]()
                times.append(last_success(hammer, acme, watch=1.5 if link == "up" else 9.0))
        finally:
            valkey.open()
            gateway.stop()
    assert max(times) <= ASKED_SECONDS
    shown = ", ".join(f"{seconds * 1000:,.0f}" for seconds in sorted(times))
    found = f"{len(times)} revocations, {CLIENTS} clients: last success after {shown} ms (asked: 5,000)"
    proof.found(f"key revoked under load, link {link}", found, seconds=time.monotonic() - begun)
