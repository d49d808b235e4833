"""A small private head job, from the upload through HTTP to the model, its card, its endpoint and its bill."""

from __future__ import annotations

from typing import Any

import pytest

from billing.models import UsageEvent
from modeling.actions import chain
from modeling.core import artifacts
from modeling.models import Endpoint, Job, JobEvent, PrivacyEntry
from tenants import vault
from tenants.scope import scope
from tests.modeling.clinic import clinic_csv, row_of, started, train, uploaded

pytestmark = pytest.mark.real_weights


def test_a_private_head_from_upload_to_endpoint(api: Any, acme: Any) -> None:
    file_id = uploaded(api, acme, clinic_csv(900))
    job = started(api, file_id, model="minilm-l6", suffix="chapters", privacy={"epsilon": 8})
    assert job["status"] == "queued"
    assert job["privacy"]["epsilon"] == 8
    done = train(acme, job["id"])
    assert done.state == Job.State.SUCCEEDED, done.error
    body = api.get(f"/v1/fine_tuning/jobs/{job['id']}").json()
    assert body["fine_tuned_model"].startswith(f"ft:minilm-l6:{acme.slug}:chapters:")
    card = api.get(f"/v1/models/{body['fine_tuned_model']}/card").json()
    assert card["privacy"]["epsilon"] <= 8.0 < card["privacy"]["epsilon_replace_one"]
    assert card["metrics"]["accuracy"] > 0.5
    with scope(acme):
        endpoint = Endpoint.objects.of(acme).select_related("version").get(name="chapters")
        assert endpoint.version.name == body["fine_tuned_model"]
        tensors, config = artifacts.load(vault.get(endpoint.version.object))
        assert tensors["head.weight"].shape == (3, 384)
        assert config["labels"] == card["data"]["labels"]
        assert UsageEvent.objects.of(acme).get(request_id=job["id"]).quantity > 0
        kinds = list(PrivacyEntry.objects.of(acme).order_by("seq").values_list("kind", flat=True))
        assert kinds[0] == "reserved"
        assert kinds[-1] == "settled"
        assert chain.verify(acme) == len(kinds)
        seqs = list(JobEvent.objects.of(acme).filter(job=done).order_by("seq").values_list("seq", flat=True))
        assert seqs == list(range(1, done.last_seq + 1))
    assert done.checkpoint_id is None


@pytest.mark.slow
def test_a_lora_job_runs_end_to_end(api: Any, acme: Any) -> None:
    file_id = uploaded(api, acme, clinic_csv(400, chapters=2))
    job = started(api, file_id, method="lora", max_steps=2, privacy={"epsilon": 8})
    done = train(acme, job["id"])
    assert done.state == Job.State.SUCCEEDED, done.error
    assert done.method == "lora"
    with scope(acme):
        tensors, _config = artifacts.load(vault.get(row_of(acme, job["id"]).model_version.object))
    assert any(name.startswith("lora.") for name in tensors)
