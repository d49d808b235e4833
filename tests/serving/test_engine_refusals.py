"""An artefact opens only for its tenant, under its key, from its own bytes; and every misuse gets a clear no."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from modeling.serving.wire import EngineRefusal, Frame, Kind, encode, hello
from tests.serving.made import Artifacts, EngineProcess, head_parts

pytestmark = pytest.mark.real_weights


def code_of(engine: EngineProcess, op: str = "classify", **body: Any) -> str:
    with pytest.raises(EngineRefusal) as refusal:
        engine.ask(op, **({"base": "minilm-l6", "inputs": ["hello"]} | body))
    return refusal.value.code


def test_nothing_opens_for_somebody_else(engine: EngineProcess, artifacts: Artifacts) -> None:
    ours, theirs = artifacts.head("acme"), artifacts.head("globex", seed=1)
    assert engine.classify(ours, "hello")["results"]  # the control, and both are in memory now
    assert engine.classify(theirs, "hello")["results"]
    for swapped in (
        theirs.body,  # their whole reference under our name
        theirs.body | {"context": ours.body["context"]},
        ours.body | {"path": theirs.body["path"]},
        ours.body | {"key": theirs.body["key"]},
        ours.body | {"path": theirs.body["path"], "key": theirs.body["key"]},
        ours.body | {"context": ["acme", ours.body["version"], 2]},
        ours.body | {"context": ["acme", theirs.body["version"], 1]},
        ours.body | {"path": str(Path(ours.body["path"]).with_name("absent"))},
    ):
        assert code_of(engine, tenant="acme", artifact=swapped) == "bad_artifact"


def test_swapped_ciphertext_is_refused(engine: EngineProcess, artifacts: Artifacts) -> None:
    ours, theirs = artifacts.head("acme"), artifacts.head("globex", seed=1)
    shutil.copyfile(theirs.body["path"], ours.body["path"])
    assert code_of(engine, tenant="acme", artifact=ours.body) == "bad_artifact"


def test_a_flipped_bit_is_refused(engine: EngineProcess, artifacts: Artifacts) -> None:
    made = artifacts.head()
    file = Path(made.body["path"])
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert code_of(engine, tenant="acme", artifact=made.body) == "bad_artifact"


def test_a_head_that_does_not_fit_is_refused(engine: EngineProcess, artifacts: Artifacts) -> None:
    tensors, config = head_parts(5, 0)
    for wrong in (
        config | {"labels": ["one"]},
        config | {"labels": []},
        config | {"task": "recommendation"},
    ):
        made = artifacts.seal(tensors, wrong, tenant="acme")
        assert code_of(engine, tenant="acme", artifact=made.body) in {"bad_artifact", "wrong_task"}
    lora = artifacts.lora(modules=("encoder.layer.9.attention.self.query",))
    assert code_of(engine, tenant="acme", artifact=lora.body) == "bad_artifact"


def test_what_cannot_be_asked(engine: EngineProcess, artifacts: Artifacts) -> None:
    made = artifacts.head()
    assert code_of(engine, tenant="acme") == "wrong_task"
    assert code_of(engine, tenant="acme", base="gpt-9") == "no_base"
    assert code_of(engine, "sing", tenant="acme") == "wrong_task"
    assert code_of(engine, "embed", tenant="acme", inputs=[]) == "bad_request"
    assert code_of(engine, "embed", tenant="acme", inputs=[7]) == "bad_request"
    assert code_of(engine, tenant="acme", artifact={"version": "x"}) == "bad_request"
    assert code_of(engine, "recommend", tenant="acme", artifact=made.body, history=[]) == "wrong_task"
    assert code_of(engine, tenant="acme", artifact=made.body, seconds=1e-6) == "deadline"


def test_purge_forgets_a_version(engine: EngineProcess, artifacts: Artifacts) -> None:
    made, other = artifacts.head("purged"), artifacts.head("kept")
    engine.classify(made, "hello")
    engine.classify(other, "hello")
    Path(made.body["path"]).unlink()
    Path(other.body["path"]).unlink()
    assert engine.classify(made, "hello")["results"]  # the control: it answers from memory
    assert engine.ask("purge", tenant="purged", version="another") == {"purged": 0}
    assert engine.ask("purge", tenant="purged", version=made.body["version"])["purged"] == 2
    assert code_of(engine, tenant="purged", artifact=made.body) == "bad_artifact"
    assert engine.classify(other, "hello")["results"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 64,
        hello() + b"\x00\x00\x00\x02\xc1\xc1",
        encode(Frame(Kind.ASK, 1, {})),
    ],
)
def test_garbage_closes_that_connection_only(engine: EngineProcess, garbage: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(5)
        link.connect(str(engine.socket))
        link.sendall(garbage)
        while link.recv(4096):
            pass
    assert engine.ask("health")["bases"]["minilm-l6"] == "ready"
