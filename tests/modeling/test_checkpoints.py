"""The list of checkpoints: OpenAI's shape, epsilon spent by each step, released numbers only."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

from modeling.actions import training
from modeling.models import Job
from tenants.models import Tenant
from tests.modeling.clinic import row_of, started, train
from tests.modeling.test_jobs_end import Stop, claimed


def listed(api: Any, job_id: str, **query: Any) -> dict[str, Any]:
    return dict(api.get(f"/v1/fine_tuning/jobs/{job_id}/checkpoints", **query).json())


def test_it_works(api: Any, acme: Tenant, words_file: str) -> None:
    job_id = started(api, words_file, privacy={"epsilon": 3})["id"]
    assert listed(api, job_id)["data"] == []
    done = train(acme, job_id)
    assert done.state == Job.State.SUCCEEDED
    data = listed(api, job_id, limit=100)["data"]
    assert data[0]["step_number"] == done.plan["steps"]
    assert [one["step_number"] for one in data] == sorted((one["step_number"] for one in data), reverse=True)
    spent = [one["epsilon_spent"] for one in data]
    assert spent == sorted(spent, reverse=True)
    assert spent[0] == pytest.approx(done.epsilon, rel=0.02)
    for one in data:
        FineTuningJobCheckpoint(**{**one, "fine_tuned_model_checkpoint": ""})
        assert set(one["metrics"]) <= {"step", "full_valid_mean_token_accuracy", "noise_error"}
    released = [one for one in data if "noise_error" in one["metrics"]]
    assert len(released) == done.spent["held_out"]
    assert done.model_version is not None
    assert [one["fine_tuned_model_checkpoint"] for one in data[:2]] == [done.model_version.name, None]
    assert not any(one["is_kept"] for one in data)  # checkpoints live no longer than their job


def test_the_newest_is_kept_while_the_job_can_go_on(api: Any, acme: Tenant, words_file: str) -> None:
    job = row_of(acme, started(api, words_file)["id"])
    training.run(claimed(acme, job), is_stopping=Stop(30))
    data = listed(api, job.public_id)["data"]
    assert len(data) >= 2
    assert [one["is_kept"] for one in data] == [True, *[False] * (len(data) - 1)]


def test_pages_of_checkpoints(api: Any, acme: Tenant, words_file: str) -> None:
    job_id = started(api, words_file)["id"]
    train(acme, job_id)
    whole = listed(api, job_id, limit=100)
    first = listed(api, job_id, limit=2)
    assert first["has_more"] is True
    rest = listed(api, job_id, limit=100, after=first["last_id"])
    assert [one["id"] for one in (*first["data"], *rest["data"])] == [one["id"] for one in whole["data"]]
    assert api.get(f"/v1/fine_tuning/jobs/{job_id}/checkpoints", after="ftckpt-nothing").status_code == 404
