"""A model to take away, through the API and the page: what is inside, who may, and that the audit log notes it."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from modeling.core import verify
from modeling.models import ModelVersion
from tenants import audit
from tenants.models import AuditEntry
from tenants.scope import scope
from tests.modeling.clinic import started, train, uploaded, words_csv
from tests.modeling.finished import Run


def archive_of(answer: Any) -> dict[str, bytes]:
    """The files of an archive by their path inside its one folder."""
    assert answer.status_code == 200, answer.content
    assert answer["Content-Type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(b"".join(answer.streaming_content))) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert len({name.split("/")[0] for name in names}) == 1
        return {name.split("/", 1)[1]: archive.read(name) for name in names}


@pytest.fixture
def tiny_settings(settings: Any, tiny_models: Path) -> None:
    settings.MODELS_DIR = tiny_models


def test_it_works(finished: Run, tiny_settings: None) -> None:
    files = archive_of(finished.api.get(f"/v1/models/{finished.version.name}/download"))
    assert set(files) >= {
        "artefact.safetensors", "predict.py", "requirements.txt", "README.md", "card.json", "card.md",
        "receipt.json", "receipt_keys.json", "tokenizer/tokenizer.json",
    }  # fmt: skip
    assert not any(name.startswith("base/") for name in files)
    signed = finished.signed()
    assert hashlib.sha256(files["artefact.safetensors"]).hexdigest() == signed.subject("artefact.safetensors")
    assert json.loads(files["receipt.json"]) == finished.receipt
    verify.check_card(signed, json.loads(files["card.json"]))
    assert finished.version.name in files["README.md"].decode()
    compile(files["predict.py"], "predict.py", "exec")


def test_the_audit_log_names_who_took_it(finished: Run, tiny_settings: None) -> None:
    page = f"/t/{finished.tenant.slug}/models/{finished.version.short_id}/download/"
    bob = finished.people.browser("bob")
    files = archive_of(bob.post(page, {"with_base": "1"}))
    assert "base/model.safetensors" in files
    with scope(finished.tenant):
        entry = AuditEntry.objects.of(finished.tenant).filter(action="model.download").latest("seq")
        assert audit.verify(finished.tenant).is_whole
    assert entry.actor == finished.people.user("bob").email
    assert entry.details == {"with_base": True}
    assert finished.people.browser("vera").post(page).status_code == 403
    assert finished.people.browser("carol").post(page).status_code == 404
    assert bob.get(page).status_code == 405


def test_a_key_needs_the_scope(finished: Run) -> None:
    from tests.make import Api

    files_only = Api(finished.people.key(finished.tenant, "files"))
    for what in ("download", "receipt", "card"):
        assert files_only.get(f"/v1/models/{finished.version.name}/{what}").status_code == 403
        stranger = finished.people.api("globex").get(f"/v1/models/{finished.version.name}/{what}")
        assert stranger.status_code == 404
    wrong = finished.api.get(f"/v1/models/{finished.version.name}/download", with_base="perhaps")
    assert wrong.status_code == 400


def test_a_deleted_model_cannot_be_taken(tiny: Path, acme: Any, api: Any, alice: Any) -> None:
    file = uploaded(api, acme, words_csv(300))
    job = train(acme, started(api, file, privacy={"mode": "off", "reason": "a test"})["id"])
    with scope(acme):
        version = ModelVersion.objects.of(acme).get(job=job)
    files = archive_of(api.get(f"/v1/models/{version.name}/download"))
    assert "WITHOUT privacy" in files["README.md"].decode()
    assert files["card.md"].decode().splitlines()[2].startswith("> **PRIVACY OFF.**")
    page = f"/t/{acme.slug}/models/{version.short_id}/"
    assert "trained without privacy: guard it" in alice.get(page).content.decode()
    assert alice.post(f"{page}delete/", {"confirmation": version.short_id}).status_code == 302
    assert alice.post(f"{page}download/").status_code == 404
    assert api.get(f"/v1/models/{version.name}/download").status_code == 404
    assert alice.get(f"{page}receipt.json").status_code == 200  # what was learnt from people stays on record


def test_archives_under_way_are_bounded(finished: Run, tiny_settings: None) -> None:
    """Each holds its weights in memory: a tenant that opens them and does not read is refused."""
    path = f"/v1/models/{finished.version.name}/download"
    slow = [finished.api.get(path) for _ in range(2)]
    assert [one.status_code for one in slow] == [200, 200]
    refused = finished.api.get(path)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "too_many_downloads"
    assert refused["Retry-After"]
    archive_of(slow.pop())  # one was read to its end
    again = finished.api.get(path)
    assert again.status_code == 200
    again.close()  # one was given up
    slow.append(finished.api.get(path))
    assert slow[-1].status_code == 200
    for one in slow:
        one.close()
    assert archive_of(finished.api.get(path))
