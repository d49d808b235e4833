"""Room that an announced upload took is not there for another file, and its own completion does not need it twice."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from billing import limits
from modeling.actions import files, uploading
from modeling.actions.files import Announced
from tenants import vault
from tenants.audit import SYSTEM
from tenants.scope import scope

CONTENT = b"patient,note,label\n" + b"".join(b"P%d,some words here,a\n" % n for n in range(40))


def test_announced_room_is_taken_once(acme: Any, api: Any) -> None:
    with scope(acme):
        most = limits.ceiling(acme, "storage_bytes")
        upload = uploading.begin(acme, SYSTEM, Announced("x.csv", "fine-tune", len(CONTENT)))
        rest = most - len(CONTENT) - files.stored_bytes(acme)
        uploading.begin(acme, SYSTEM, Announced("rest.csv", "fine-tune", rest))
    with scope(acme), pytest.raises(limits.LimitReached), vault.create(acme, "upload") as writer:
        writer.write(CONTENT)
        files.add_file(acme, SYSTEM, name="y.csv", purpose="fine-tune", writer=writer)
    path = f"/v1/uploads/{upload.public_id}"
    part = api.client.post(f"{path}/parts", {"data": SimpleUploadedFile("p", CONTENT)})
    assert part.status_code == 200, part.content
    done = api.post(f"{path}/complete", {"part_ids": [part.json()["id"]]})
    assert done.status_code == 200, done.content
