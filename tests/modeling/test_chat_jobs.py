"""Chat jobs through HTTP: conversations, and prompts with completions; columns that cannot be are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modeling.core import artifacts
from modeling.models import Job
from tenants import vault
from tenants.scope import scope
from tests.core.tiny_chat import talk, write_models
from tests.modeling.clinic import dataset_of, row_of, started, train, uploaded

ROWS = 260


@pytest.fixture(scope="module")
def chat_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def tiny_chat(chat_models: Path, settings: Any) -> None:
    settings.MODELS_DIR = chat_models


def pairs_csv(rows: int = ROWS, *, header: str = "person_id,prompt,completion") -> bytes:
    lines = [
        f"P{number},hello red number {number},red red blue {number % 7} and so on" for number in range(rows)
    ]
    return "\n".join([header, *lines]).encode()


def pairs_jsonl(rows: int = ROWS) -> bytes:
    lines = [
        {"prompt": f"hello red number {number}", "completion": f"red red blue {number % 7} and so on"}
        for number in range(rows)
    ]
    return "\n".join(json.dumps(line) for line in lines).encode()


def talks_jsonl(rows: int = ROWS) -> bytes:
    lines = []
    for number in range(rows):
        turns = talk("red", rounds=1 + number % 2)
        turns[1]["content"] += f" number {number}"
        lines.append(json.dumps({"messages": turns}))
    return "\n".join(lines).encode()


def run(api: Any, tenant: Any, file_id: str, **body: Any) -> tuple[Job, dict[str, Any], dict[str, Any]]:
    """(the job's row, its artefact's tensors, its config) of a private run of two steps."""
    job = started(api, file_id, max_steps=2, privacy={"epsilon": 8}, **body)
    done = train(tenant, job["id"])
    assert done.state == Job.State.SUCCEEDED, done.error
    with scope(tenant):
        tensors, config = artifacts.load(vault.get(row_of(tenant, job["id"]).model_version.object))
    return done, dict(tensors), config


@pytest.mark.parametrize(("name", "content"), [("p.csv", pairs_csv()), ("p.jsonl", pairs_jsonl())])
def test_prompts_and_completions_are_guessed_and_learnt(
    api: Any, acme: Any, name: str, content: bytes
) -> None:
    file_id = uploaded(api, acme, content, name=name)
    done, tensors, config = run(api, acme, file_id)
    assert done.task == "chat"
    assert done.method == config["method"] == "final_hidden"
    assert set(tensors) == {"adapter.A", "adapter.B", "adapter.bias"}
    dataset = dataset_of(acme, done.public_id)
    assert dataset.columns["prompt"] == "prompt"
    assert dataset.unit_column == ("person_id" if name.endswith("csv") else "")


@pytest.mark.parametrize("method", ["top_layers", "lora"])
def test_conversations_train_by_every_method(api: Any, acme: Any, method: str) -> None:
    file_id = uploaded(api, acme, talks_jsonl(), name="t.jsonl")
    done, tensors, config = run(api, acme, file_id, method=method)
    assert done.method == config["method"] == method
    assert all(name.startswith("lora.model.layers.") for name in tensors)


def test_named_columns_need_not_be_guessable(api: Any, acme: Any) -> None:
    file_id = uploaded(api, acme, pairs_csv(header="who,asked,answered"), name="q.csv")
    body = {"task": "chat", "columns": {"prompt": "asked", "completion": "answered"}}
    job = started(api, file_id, **body)
    assert row_of(acme, job["id"]).recipe["columns"]["completion"] == "answered"


@pytest.mark.parametrize(
    ("columns", "code", "param"),
    [
        ({}, "column_required", "columns.messages"),
        ({"prompt": "asked"}, "column_required", "columns.completion"),
        ({"prompt": "asked", "completion": "asked"}, "invalid_column", "columns.completion"),
        ({"prompt": "asked", "completion": "nowhere"}, "column_not_found", "columns.completion"),
        ({"messages": "asked"}, "invalid_column", "columns.messages"),
    ],
)
def test_columns_that_cannot_be_are_refused(
    api: Any, acme: Any, columns: dict[str, str], code: str, param: str
) -> None:
    file_id = uploaded(api, acme, pairs_csv(header="who,asked,answered"), name="q.csv")
    answer = api.post("/v1/fine_tuning/jobs", {"training_file": file_id, "task": "chat", "columns": columns})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, param)


def test_a_completion_that_is_no_text_is_refused(api: Any, acme: Any) -> None:
    lines = [json.dumps({"prompt": f"hello {n}", "completion": ["red"]}) for n in range(ROWS)]
    file_id = uploaded(api, acme, "\n".join(lines).encode(), name="p.jsonl")
    answer = api.post(
        "/v1/fine_tuning/jobs",
        {
            "training_file": file_id,
            "task": "chat",
            "columns": {"prompt": "prompt", "completion": "completion"},
        },
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "columns.completion"


def test_rows_without_an_answer_are_left_out(api: Any, acme: Any) -> None:
    content = pairs_csv() + b"\nP900,hello red,\nP901,,red"
    done, _, _ = run(api, acme, uploaded(api, acme, content, name="p.csv"))
    assert done.state == Job.State.SUCCEEDED
