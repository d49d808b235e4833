"""One request for each operation of /v1 that must succeed, on data made for it, for the tests of the description."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import requests

from tenants.models import Tenant
from tests.make import Api
from tests.modeling.clinic import started, train, uploaded, words_csv
from tests.serving.batching import jsonl, request_line
from tests.serving.made import item_parts
from tests.serving.speaking import make_version


@dataclass
class Seeds:
    """A tenant with one of everything, and its key."""

    address: str
    tenant: Tenant
    api: Api
    file: str = ""
    job: str = ""
    model: str = ""
    classifier: str = ""
    recommender: str = ""
    ids: dict[str, str] = field(default_factory=dict)
    erased: dict[str, str] = field(default_factory=dict)  # a dataset and an erasure of it

    def post(self, path: str, body: Any = None) -> dict[str, Any]:
        """POST through the live site; its answer must be a good one."""
        answer = requests.post(
            f"{self.address}/v1/{path}",
            json=body,
            headers={"Authorization": f"Bearer {self.api.key}"},
            timeout=60,
        )
        assert answer.status_code == 200, (path, answer.text)
        return dict(answer.json())

    def queued(self) -> str:
        """A job that waits."""
        return str(started(self.api, self.file, privacy={"epsilon": 1})["id"])

    def version(self) -> str:
        """One more classifier of the tiny encoder's width."""
        chance = np.random.default_rng(0)
        tensors = {
            "head.weight": chance.normal(0, 3, (3, 32)).astype(np.float32),
            "head.bias": np.zeros(3, np.float32),
        }
        config = {"task": "classification", "base": "minilm-l6", "method": "head", "temperature": 1.0}
        return str(make_version(self.tenant, tensors, config | {"labels": ["a", "b", "c"]}).name)

    def endpoint(self) -> str:
        """An endpoint on one version."""
        name = f"e-{secrets.token_hex(4)}"
        self.post("endpoints", {"name": name, "model": self.classifier})
        return name

    def dataset(self) -> str:
        """A fresh dataset of a few rows, each one person."""
        rows = "".join(f"word{n} word{n + 1} word{n + 2},class {n % 2}\n" for n in range(12))
        file = uploaded(self.api, self.tenant, f"text,label\n{rows}".encode(), name="rows.csv")
        return str(self.api.get(f"/v1/files/{file}").json()["dataset"])

    def erasure(self) -> dict[str, str]:
        """One erased person, and the dataset."""
        dataset = self.dataset()
        return {
            "dataset_id": dataset,
            "erasure_id": self.post(f"datasets/{dataset}/erasures", {"line": 3})["id"],
        }

    def fresh_file(self) -> str:
        """An inspected file that nothing rests on."""
        rows = "".join(f"word{n} word{n + 1} word{n + 2},class {n % 2}\n" for n in range(12))
        return str(uploaded(self.api, self.tenant, f"text,label\n{rows}".encode(), name="fresh.csv"))

    def upload(self, content: bytes = b"a,b\n1,2\n") -> str:
        """An upload under way."""
        body = {"filename": "a.csv", "purpose": "fine-tune", "bytes": len(content), "mime_type": "text/csv"}
        return str(self.post("uploads", body)["id"])

    def part(self, upload: str, content: bytes = b"a,b\n1,2\n") -> str:
        """A part of it."""
        answer = requests.post(
            f"{self.address}/v1/uploads/{upload}/parts",
            files={"data": content},
            headers={"Authorization": f"Bearer {self.api.key}"},
            timeout=60,
        )
        return str(answer.json()["id"])

    def requests_file(self) -> str:
        """A file of requests."""
        return str(self.api.upload("r.jsonl", jsonl([request_line(1)]), "batch").json()["id"])

    def batch(self) -> str:
        """A batch that was just started."""
        body = {
            "input_file_id": self.requests_file(),
            "endpoint": "/v1/embeddings",
            "completion_window": "24h",
        }
        return str(self.post("batches", body)["id"])


def sow(address: str, tenant: Tenant, api: Api) -> Seeds:
    """Make the tenant's data: a file, a finished job and its model, a recommender, and an id for each path name."""
    seeds = Seeds(address, tenant, api)
    seeds.file = uploaded(api, tenant, words_csv())
    seeds.job = str(started(api, seeds.file, privacy={"mode": "off", "reason": "a test"})["id"])
    done = train(tenant, seeds.job)
    assert done.model_version is not None, done.error
    seeds.model = done.model_version.name
    seeds.classifier = seeds.version()
    seeds.recommender = str(make_version(tenant, *item_parts(50, 1)).name)
    upload = seeds.upload()
    found = api.get(f"/v1/files/{seeds.file}").json()
    seeds.erased = seeds.erasure()
    seeds.ids = {
        "file_id": seeds.file,
        "dataset_id": found["dataset"],
        "job_id": seeds.job,
        "batch_id": seeds.batch(),
        "upload_id": upload,
        "model": seeds.model,
        "endpoint": seeds.endpoint(),
        "number": "1",
    }
    return seeds


def _complete(seeds: Seeds) -> dict[str, Any]:
    upload = seeds.upload()
    return _at(upload_id=upload) | {"body": {"part_ids": [seeds.part(upload)]}}


def _at(**names: str) -> dict[str, Any]:
    return {"path_parameters": names}


def _split(seeds: Seeds) -> str:
    name = seeds.endpoint()
    seeds.post(f"endpoints/{name}", {"canary": {"model": seeds.version(), "percent": 5}})
    return name


def _moved(seeds: Seeds) -> str:
    name = seeds.endpoint()
    seeds.post("endpoints", {"name": name, "model": seeds.version()})
    return name


def _paused(seeds: Seeds) -> str:
    job = seeds.queued()
    seeds.post(f"fine_tuning/jobs/{job}/pause")
    return job


def _recommended(seeds: Seeds) -> str:
    body = {"model": seeds.recommender, "history": ["item-1"], "k": 3}
    return str(seeds.post("recommend", body)["id"])


def _job(seeds: Seeds) -> dict[str, Any]:
    return {"model": "minilm-l6", "training_file": seeds.file, "privacy": {"epsilon": 1}}


JSON: dict[str, Any] = {"media_type": "application/json"}
Case = Callable[[Seeds], dict[str, Any]]
TALK = [{"role": "user", "content": "hello"}]

# By operation: what makes it succeed. An operation that is missing here fails the test by its name.
CASES: dict[str, Case] = {
    "GET /v1/batches": lambda s: {"query": {"limit": 5}},
    "POST /v1/batches": lambda s: {
        "body": {"input_file_id": s.requests_file(), "endpoint": "/v1/embeddings", "completion_window": "24h"}
    },
    "GET /v1/batches/{batch_id}": lambda s: _at(batch_id=s.ids["batch_id"]),
    "POST /v1/batches/{batch_id}/cancel": lambda s: _at(batch_id=s.batch()),
    "GET /v1/datasets": lambda s: {},
    "GET /v1/datasets/{dataset_id}": lambda s: _at(dataset_id=s.ids["dataset_id"]),
    "POST /v1/datasets/{dataset_id}": lambda s: _at(dataset_id=s.ids["dataset_id"]) | {
        "body": {"columns": {"text": "text", "label": "label", "unit": ""}},
    },
    "GET /v1/datasets/{dataset_id}/quality": lambda s: _at(dataset_id=s.ids["dataset_id"]),
    "POST /v1/datasets/{dataset_id}/quality": lambda s: _at(dataset_id=s.ids["dataset_id"]) | {"body": {}},
    "DELETE /v1/datasets/{dataset_id}": lambda s: _at(dataset_id=s.dataset()),
    "GET /v1/datasets/{dataset_id}/versions": lambda s: _at(dataset_id=s.ids["dataset_id"]),
    "POST /v1/datasets/{dataset_id}/versions": lambda s: _at(dataset_id=s.dataset()) | {
        "body": {"mode": "remove", "units": ["class 1"], "key": "label"}
    },
    "GET /v1/datasets/{dataset_id}/versions/{number}": lambda s: _at(dataset_id=s.ids["dataset_id"], number="1"),
    "GET /v1/datasets/{dataset_id}/diff": lambda s: _at(dataset_id=s.ids["dataset_id"]) | {
        "query": {"from": 1, "to": 1}
    },
    "GET /v1/datasets/{dataset_id}/erasures": lambda s: _at(dataset_id=s.ids["dataset_id"]),
    "POST /v1/datasets/{dataset_id}/erasures": lambda s: _at(dataset_id=s.dataset()) | {"body": {"line": 3}},
    "GET /v1/datasets/{dataset_id}/erasures/{erasure_id}": lambda s: _at(**s.erased),
    "GET /v1/endpoints": lambda s: {},
    "POST /v1/endpoints": lambda s: {"body": {"name": "made-here", "model": s.classifier}},
    "GET /v1/endpoints/{name}": lambda s: _at(name=s.ids["endpoint"]),
    "POST /v1/endpoints/{name}": lambda s: _at(name=s.endpoint()) | {"body": {"shadow": s.version()}},
    "DELETE /v1/endpoints/{name}": lambda s: _at(name=s.endpoint()),
    "GET /v1/endpoints/{name}/history": lambda s: _at(name=s.ids["endpoint"]),
    "GET /v1/endpoints/{name}/predictions": lambda s: _at(name=s.ids["endpoint"]),
    "POST /v1/endpoints/{name}/promote": lambda s: _at(name=_split(s)),
    "POST /v1/endpoints/{name}/rollback": lambda s: _at(name=_moved(s)),
    "GET /v1/files": lambda s: {"query": {"limit": 5}},
    "POST /v1/files": lambda s: {
        "body": {"file": b"a,b\n1,2\n", "purpose": "fine-tune"}, "media_type": "multipart/form-data",
    },
    "GET /v1/files/{file_id}": lambda s: _at(file_id=s.file),
    "DELETE /v1/files/{file_id}": lambda s: _at(file_id=s.requests_file()),
    "GET /v1/files/{file_id}/content": lambda s: _at(file_id=s.file),
    "GET /v1/files/{file_id}/errors": lambda s: _at(file_id=s.file) | {"query": {"rule": "ragged", "limit": 5}},
    "POST /v1/files/{file_id}/read": lambda s: _at(file_id=s.fresh_file()) | {"body": {"delimiter": ","}},
    "GET /v1/fine_tuning/jobs": lambda s: {},
    "POST /v1/fine_tuning/jobs": lambda s: {"body": _job(s)},
    "GET /v1/fine_tuning/jobs/{job_id}": lambda s: _at(job_id=s.job),
    "POST /v1/fine_tuning/jobs/{job_id}/cancel": lambda s: _at(job_id=s.queued()),
    "GET /v1/fine_tuning/jobs/{job_id}/checkpoints": lambda s: _at(job_id=s.job),
    "GET /v1/fine_tuning/jobs/{job_id}/events": lambda s: _at(job_id=s.job),
    "POST /v1/fine_tuning/jobs/{job_id}/pause": lambda s: _at(job_id=s.queued()),
    "POST /v1/fine_tuning/jobs/{job_id}/priority": lambda s: _at(job_id=s.queued()) | {"body": {"priority": "high"}},
    "POST /v1/fine_tuning/jobs/{job_id}/resume": lambda s: _at(job_id=_paused(s)),
    "POST /v1/fine_tuning/quote": lambda s: {"body": _job(s)},
    "GET /v1/models": lambda s: {},
    "GET /v1/models/{name}": lambda s: _at(name=s.model),
    "DELETE /v1/models/{name}": lambda s: _at(name=s.version()),
    "GET /v1/models/{name}/card": lambda s: _at(name=s.model),
    "GET /v1/models/{name}/download": lambda s: _at(name=s.model),
    "GET /v1/models/{name}/receipt": lambda s: _at(name=s.model),
    "GET /v1/models/{name}/usage": lambda s: _at(name=s.model),
    "GET /v1/personal_data_policy": lambda s: {},
    "POST /v1/personal_data_policy": lambda s: {"body": {"entities": {"date": "report"}, "columns": "text"}},
    "GET /v1/prediction_rules": lambda s: {},
    "POST /v1/prediction_rules": lambda s: {"body": {"personal_data": "note"}},
    "GET /v1/predictions": lambda s: {},
    "GET /v1/privacy/ledger": lambda s: {},
    "GET /v1/receipt_keys": lambda s: {},
    "POST /v1/recommend/events": lambda s: {
        "body": {"events": [{"recommendation_id": _recommended(s), "type": "click", "item": "item-2"}]}
    },
    "GET /v1/recommend/events/summary": lambda s: {"query": {"model": s.recommender}},
    "POST /v1/tickets": lambda s: {},
    "GET /v1/uploads": lambda s: {"query": {"limit": 5}},
    "GET /v1/uploads/{upload_id}": lambda s: _at(upload_id=s.ids["upload_id"]),
    "POST /v1/uploads": lambda s: {
        "body": {"filename": "a.csv", "purpose": "fine-tune", "bytes": 9, "mime_type": "text/csv"}
    },
    "POST /v1/uploads/{upload_id}/cancel": lambda s: _at(upload_id=s.upload()),
    "POST /v1/uploads/{upload_id}/complete": _complete,
    "POST /v1/uploads/{upload_id}/parts": lambda s: _at(upload_id=s.upload()) | {
        "body": {"data": b"a,b\n1,2\n"}, "media_type": "multipart/form-data",
    },
    "GET /v1/usage": lambda s: {},
    "POST /v1/classify": lambda s: {"body": {"model": s.classifier, "inputs": ["word1 word2"]}},
    "POST /v1/recommend": lambda s: {"body": {"model": s.recommender, "history": ["item-1"], "k": 3}},
    "POST /v1/embeddings": lambda s: {"body": {"model": "minilm-l6", "input": "word1"}},
    "POST /v1/chat/completions": lambda s: {"body": {"model": "smollm2-135m", "messages": TALK, "max_tokens": 4}},
}  # fmt: skip
