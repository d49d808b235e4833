"""The whole /v1 by its own description, with schemathesis: each operation succeeds once, none breaks, shapes hold."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from django.conf import settings
from django.utils import timezone
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as searching
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from modeling.models import Job
from tenants.scope import scope
from tests.architecture.api_cases import CASES, Seeds, sow
from tests.make import People
from tests.modeling.test_jobs_start import pay_for
from tests.serving.batching import run_all
from tests.serving.live_site import live_site, tiny_engine

pytestmark = pytest.mark.real_weights  # the tokenizer of the chat base
EXAMPLES = int(os.environ.get("SCHEMA_EXAMPLES", "2"))  # of each operation, each way
CHECKS = [not_a_server_error, response_schema_conformance, content_type_conformance]
ENDLESS = 120.0  # seconds: a request that has not ended by then hangs


@pytest.fixture(scope="module")
def seeds(database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeds]:
    folder = tmp_path_factory.mktemp("described")
    people, before = People(), settings.MODELS_DIR
    pay_for(people.acme, "business")
    with tiny_engine(folder) as engine, live_site(engine.socket) as address:
        settings.MODELS_DIR = folder / "models"
        try:
            yield sow(address, people.acme, people.api("acme"))
        finally:
            settings.MODELS_DIR = before
            run_all()
            with scope(people.acme):  # nobody trains what was started here
                waiting = Job.objects.of(people.acme).filter(state__in=Job.OPEN)
                waiting.update(state=Job.State.CANCELLED, finished_at=timezone.now())


@pytest.fixture(scope="module")
def operations(seeds: Seeds) -> dict[str, Any]:
    """Every operation of the description by method and path."""
    schema = schemathesis.openapi.from_url(f"{seeds.address}/v1/openapi.json")
    found = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        found[f"{operation.method.upper()} {operation.path}"] = operation
    return found


def send(seeds: Seeds, case: Any) -> Any:
    """The answer, checked against the description."""
    case.headers["Authorization"] = f"Bearer {seeds.api.key}"
    answer = case.call(base_url=seeds.address, timeout=ENDLESS)
    case.validate_response(answer, checks=CHECKS)
    return answer


def test_every_operation_has_a_case(operations: dict[str, Any]) -> None:
    assert len(operations) > 40
    missing = sorted(set(operations) - set(CASES))
    assert not missing, f"tests/architecture/api_cases.py has no case for {missing}"
    assert not sorted(set(CASES) - set(operations))


def test_every_operation_succeeds(seeds: Seeds, operations: dict[str, Any]) -> None:
    reached, refused = [], []
    for name, operation in operations.items():
        answer = send(seeds, operation.Case(**made(operation, CASES[name](seeds))))
        if 200 <= answer.status_code < 300:
            reached.append(name)
        else:
            refused.append(f"{name}: {answer.status_code} {answer.text[:300]}")
    assert not refused, "not reached with a 2xx:\n" + "\n".join(refused)
    assert len(reached) == len(operations)


def made(operation: Any, parts: dict[str, Any]) -> dict[str, Any]:
    """The parts of a case; a body is JSON unless it says otherwise."""
    if "body" in parts:
        return {"media_type": "application/json"} | parts
    return parts


@pytest.mark.parametrize(
    "mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["as described", "wrong"]
)
def test_nothing_breaks(seeds: Seeds, operations: dict[str, Any], mode: GenerationMode) -> None:
    sent = 0
    for name, operation in operations.items():
        sent += explore(seeds, name, operation, mode)
    assert sent >= len(operations)


def explore(seeds: Seeds, name: str, operation: Any, mode: GenerationMode) -> int:
    """Generated requests of one operation, half of them at ids that exist; how many were sent."""
    sent = 0
    known = [own_ids(seeds, operation)] if "{" in name and not name.startswith("DELETE") else []
    strategy = st.one_of(
        operation.as_strategy(mode),
        *(operation.as_strategy(mode, path_parameters=names) for names in known),
    )

    @searching(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def run(case: Any) -> None:
        nonlocal sent
        sent += 1
        send(seeds, case)

    if mode is GenerationMode.POSITIVE:
        run()
    else:
        with contextlib.suppress(Unsatisfiable):  # a call that takes nothing cannot be made wrongly
            run()
    return sent


def own_ids(seeds: Seeds, operation: Any) -> dict[str, str]:
    """Ids of the seeds for the names in an operation's path."""
    names = {parameter.name for parameter in operation.path_parameters}
    ids = seeds.ids | ({**seeds.erased} if "erasure_id" in names else {})
    ids["name"] = ids["model"] if "/models/" in operation.path else ids["endpoint"]
    return {name: ids[name] for name in names}


def test_a_break_is_seen(seeds: Seeds, operations: dict[str, Any]) -> None:
    """The control: the checks refuse a server error and a body of another shape."""
    case = operations["GET /v1/files"].Case()
    answer = case.call(base_url=seeds.address, headers={"Authorization": f"Bearer {seeds.api.key}"})
    case.validate_response(answer, checks=CHECKS)
    good: requests.Response = requests.get(
        f"{seeds.address}/v1/files", headers={"Authorization": f"Bearer {seeds.api.key}"}, timeout=30
    )
    good._content = b'{"object": "shelf"}'
    with pytest.raises(BaseException, match="schema"):
        case.validate_response(good, checks=CHECKS)
    good.status_code = 500
    with pytest.raises(BaseException, match=r"[Ss]erver error"):
        case.validate_response(good, checks=CHECKS)
