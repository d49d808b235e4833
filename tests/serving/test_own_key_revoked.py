"""A tenant's own key disabled under load: no prediction a minute later, others unharmed, and back by itself."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from tenants import own_keys, rotation, vault, vault_keys
from tenants.audit import Actor
from tenants.models import KeyRotation, Tenant
from tenants.scope import scope
from tests.modeling.test_jobs_start import pay_for
from tests.proofs.record import Proof
from tests.serving.gateway_process import GatewayProcess, Hammer
from tests.serving.made import EngineProcess, head_parts
from tests.serving.speaking import make_version
from tests.tenants import kms

pytestmark = [pytest.mark.slow, pytest.mark.real_weights]
PLACE = f"aws-kms:{kms.REGION}"
ASKED_SECONDS = 60.0
EVERY_SECONDS = 15.0  # how often the timetable asks the tenants' own keys
CLIENTS = 2


class Watch:
    """What the timetable does: ask every own key each EVERY_SECONDS, or never (`is_on=False`: no worker is up)."""

    def __init__(self, *, is_on: bool) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run) if is_on else None

    def __enter__(self) -> None:
        if self._thread:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(EVERY_SECONDS):
            own_keys.watch()
        connection.close()


@pytest.fixture
def arn(settings: Any) -> Iterator[tuple[Any, str]]:
    with kms.serving() as client:
        settings.OWN_KEYS = [PLACE]
        yield client, kms.new_key(client)


def take(tenant: Tenant, name: str) -> None:
    """The own key wraps everything."""
    with scope(tenant):
        own_keys.take(tenant, Actor("user", "1", "owner"), place=PLACE, name=name)
        running = KeyRotation.objects.of(tenant).get(state="running")
        pk = running.pk
    assert rotation.run(tenant.pk, pk, is_stopping=lambda: False)


def read_until_refused(tenant: Tenant, made: Any, seconds: float, times: list[float]) -> None:
    """Read an object of the tenant's again and again; when each read that worked ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            assert vault.get(made) == b"private"
            times.append(time.monotonic())
        except vault.KeysAway:
            pass
        time.sleep(0.2)
    connection.close()


@pytest.mark.parametrize("is_watched", [True, False])
def test_a_minute_after_the_key_is_disabled_nothing_opens(
    is_watched: bool, acme: Tenant, globex: Tenant, people: Any, tmp_path: Path, engine: EngineProcess,
    arn: tuple[Any, str], proof: Proof,
) -> None:  # fmt: skip
    begun, (client, name) = time.monotonic(), arn
    bodies = {}
    for number, tenant in enumerate((acme, globex)):
        pay_for(tenant, "business")
        model = make_version(tenant, *head_parts(5, number)).name
        bodies[tenant.pk] = json.dumps({"model": model, "inputs": ["a fracture of the wrist"]})
    made = vault.put(acme, "upload", b"private")
    take(acme, name)
    vault_keys.forget()
    gateway = GatewayProcess(tmp_path, engine.socket, OWN_KEYS=PLACE)
    try:
        gateway.wait()
        hammers = [
            Hammer(gateway.socket, people.key(one, "predict"), bodies[one.pk], CLIENTS)
            for one in (acme, globex)
        ]
        with Watch(is_on=is_watched):
            for hammer in hammers:
                hammer.start()
            time.sleep(3.0)
            before, reads = len(hammers[0].of(200)), list[float]()
            reader = threading.Thread(target=read_until_refused, args=(acme, made, ASKED_SECONDS, reads))
            reader.start()
            time.sleep(1.0)
            kms.disable(client, name)
            disabled = time.monotonic()
            reader.join()
            time.sleep(2.0)
            last = max((at - disabled for at, _ in hammers[0].of(200)), default=0.0)
            read = max((at - disabled for at in reads), default=0.0)
            refused = len(hammers[0].of(403))
            kms.enable(client, name)
            enabled = time.monotonic()
            time.sleep(EVERY_SECONDS + 5.0 if is_watched else 12.0)
        for hammer in hammers:
            hammer.stop()
    finally:
        gateway.stop()
    assert before > 10, "there was no load"
    assert refused > 5, "nobody went on asking"
    assert 0.0 < last <= ASKED_SECONDS
    assert 0.0 < read <= ASKED_SECONDS
    back = min((at - enabled for at, _ in hammers[0].of(200) if at > enabled), default=None)
    assert back is not None, "it must come back without a restart"
    others = {status for _at, status, _name in hammers[1].answers}
    assert others == {200}, "a neighbour was harmed"
    gaps = [at for at, _ in hammers[1].of(200)]
    widest = max(later - earlier for earlier, later in pairwise(gaps))
    found = (
        f"last prediction {last:.1f} s and last read {read:.1f} s after the key was disabled (asked: 60), back "
        f"{back:.1f} s after it was enabled; {len(gaps):,} answers to a neighbour, all well, widest gap {widest:.1f} s"
    )
    how = "watched" if is_watched else "no worker to watch it"
    proof.found(f"a tenant's own key revoked under load, {how}", found, seconds=time.monotonic() - begun)
