"""kill -9 of the web process at any part of an upload: it goes on, same bytes; who does not ask breaks it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from modeling.models import File
from tenants import vault
from tenants.models import Tenant, VaultObject
from tenants.scope import scope
from tests.modeling.web_process import Sender, WebProcess, web_process
from tests.proofs.record import Proof

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("UPLOAD_KILLS", "20"))
PART_BYTES, PARTS = 3 << 20, 6
SIZE = PARTS * PART_BYTES - 12_345
OF_PARTS = ("before", "middle", "sealing", "answered")  # and the fourth kill of each upload: "completing"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebProcess]:
    with web_process(tmp_path_factory.mktemp("web")) as started:
        yield started


class Upload:
    """One upload whose sender knows only what the server tells it, and whose server dies."""

    def __init__(self, web: WebProcess, key: str, seed: int) -> None:
        self.chance = random.Random(seed)
        self.web, self.sender = web, Sender(web.port, key)
        self.content = self.chance.randbytes(SIZE)
        body = {"filename": "a.csv", "purpose": "fine-tune", "bytes": SIZE, "mime_type": "text/csv"}
        self.id = str(self.sender.ask("POST", "uploads", body | {"part_bytes": PART_BYTES})["id"])

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def slice(self, number: int) -> bytes:
        return self.content[(number - 1) * PART_BYTES : number * PART_BYTES]

    def die(self, moment: str, number: int) -> None:
        """kill -9 at this moment of this part, whose answer the sender never reads; then a new process."""
        if moment == "before":
            self.web.kill()
        else:
            share = self.chance.uniform(0.1, 0.9) if moment == "middle" else 1.0
            link = self.sender.part(self.id, self.slice(number), share, part_number=number)
            if moment == "answered":
                assert link.getresponse().status == 200
            else:
                time.sleep(self.chance.uniform(0.0, 0.06))
            self.web.kill()
            link.close()
        self.web.start()

    def missing(self) -> list[int]:
        """The numbers that have not arrived, as the server tells; what has must have the right checksum."""
        told = self.sender.ask("GET", f"uploads/{self.id}")
        for part in told["parts"]:
            assert part["sha256"] == hashlib.sha256(self.slice(part["part_number"])).hexdigest()
        there = {part["part_number"] for part in told["parts"]}
        return [number for number in range(1, PARTS + 1) if number not in there]

    def send_missing(self) -> None:
        for number in self.missing():
            digest = hashlib.sha256(self.slice(number)).hexdigest()
            self.sender.send_part(self.id, self.slice(number), part_number=number, sha256=digest)

    def finish(self, *, dying: bool) -> str:
        """Complete, with a kill in the middle of it or none; the file's id."""
        parts = self.sender.ask("GET", f"uploads/{self.id}")["parts"]
        body = {"part_ids": [part["id"] for part in parts], "sha256": self.sha256}
        if dying:
            raw, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
            link = self.sender.begun("POST", f"uploads/{self.id}/complete", raw, headers, 1.0)
            time.sleep(self.chance.uniform(0.0, 0.12))
            self.web.kill()
            link.close()
            self.web.start()
        return str(self.sender.ask("POST", f"uploads/{self.id}/complete", body)["file"]["id"])


def stored_sha256(tenant: Tenant, file_id: str) -> str:
    with scope(tenant):
        file = File.objects.of(tenant).select_related("object").get(public_id=file_id)
        assert file.object is not None
        return hashlib.sha256(vault.get(file.object)).hexdigest()


def living(tenant: Tenant, kind: str) -> int:
    with scope(tenant):
        return VaultObject.objects.of(tenant).filter(kind=kind, destroyed_at=None).count()


def naive(upload: Upload, moment: str, tenant: Tenant) -> bool:
    """The control: goes on without asking what arrived, and completes with what lies there; whether it is whole."""
    killed = 3
    for number in range(1, PARTS + 1):
        if number == killed:
            link = upload.sender.part(upload.id, upload.slice(number), 0.5 if moment == "middle" else 1.0)
            if moment == "answered":
                assert link.getresponse().status == 200
            upload.web.kill()
            link.close()
            upload.web.start()
            if moment == "answered":  # no answer was read: sent again, and there twice
                upload.sender.send_part(upload.id, upload.slice(number))
        else:
            upload.sender.send_part(upload.id, upload.slice(number))
    parts = [part["id"] for part in upload.sender.ask("GET", f"uploads/{upload.id}")["parts"]]
    status, answer = upload.sender.try_to("POST", f"uploads/{upload.id}/complete", {"part_ids": parts})
    return status == 200 and stored_sha256(tenant, answer["file"]["id"]) == upload.sha256


def test_an_upload_goes_on_after_kills(api: Any, acme: Tenant, web: WebProcess, proof: Proof) -> None:
    begun, killed, uploads = time.monotonic(), Counter[str](), 0
    chance = random.Random(7)
    while sum(killed.values()) < KILLS:
        upload = Upload(web, api.key, seed=uploads)
        uploads += 1
        moments = [OF_PARTS[(uploads + turn) % len(OF_PARTS)] for turn in range(3)]
        for number, moment in zip(sorted(chance.sample(range(1, PARTS + 1), 3)), moments, strict=True):
            for before in [one for one in upload.missing() if one < number]:
                upload.sender.send_part(upload.id, upload.slice(before), part_number=before)
            upload.die(moment, number)
            killed[moment] += 1
        upload.send_missing()
        assert upload.missing() == []
        file_id = upload.finish(dying=True)
        killed["completing"] += 1
        assert stored_sha256(acme, file_id) == upload.sha256
        assert living(acme, "part") == uploads * PARTS  # no part twice, none that belongs to nobody
        assert living(acme, "joined") == uploads
    broken = [
        moment for moment in ("middle", "answered") if not naive(Upload(web, api.key, 99), moment, acme)
    ]
    assert broken == ["middle", "answered"], "the control must fail"
    times = ", ".join(f"{count} {moment}" for moment, count in sorted(killed.items()))
    found = (
        f"{sum(killed.values())} kills in {uploads} uploads of {SIZE / 1e6:.0f} MB ({times}): the same SHA-256 each "
        "time, no part twice; a sender that goes on without asking: broken 2 of 2 times"
    )
    proof.found("kill -9 of the web process during uploads", found, seconds=time.monotonic() - begun)
