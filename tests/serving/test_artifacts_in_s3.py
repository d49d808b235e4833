"""An engine on another host needs no shared folder: it reads ciphertext from the bucket, by itself."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from modeling.core import artifacts
from modeling.serving.store import Reference, read_artifact
from modeling.serving.wire import EngineRefusal
from saas.lib.object_store import Place, store_at
from saas.lib.sealed import Context, SealWriter
from tests import s3
from tests.serving.made import EngineProcess, Made, item_parts

TENANT = "acme"


def sealed_in(place: Place) -> Made:
    """A recommender that lies in the bucket."""
    store = store_at(place)
    tensors, config = item_parts(50, seed=3)
    key, name = os.urandom(32), f"{TENANT}/version-1/1"
    sink: Any = store.create(name)
    writer = SealWriter(sink, key=key, context=Context(TENANT, "version-1", 1))
    writer.write(artifacts.dump(tensors, config))
    writer.close()
    sink.finish()
    body = {"version": "v1", "path": store.location(name), "key": key, "context": [TENANT, "version-1", 1]}
    return Made(TENANT, body, tensors, config)


@pytest.mark.slow
def test_the_engine_process_reads_from_the_bucket(tmp_path: Path) -> None:
    place = s3.bucket()
    made = sealed_in(place)
    with s3.environment(place) as given:
        engine = EngineProcess(tmp_path / "engine.sock", models=tmp_path, **given)
    try:
        while not engine.answers():
            assert engine.process.poll() is None
            time.sleep(0.05)
        answer = engine.ask(
            "recommend", tenant=TENANT, base="minilm-l6", artifact=made.body, history=["item-1"], k=3
        )
        assert len(answer["items"]) == 3
        foreign = {**made.body, "path": made.body["path"].replace(place.url, "s3://another-bucket")}
        with pytest.raises(EngineRefusal) as refused:
            engine.ask(
                "recommend", tenant=TENANT, base="minilm-l6", artifact=foreign, history=["item-1"], k=3
            )
        assert refused.value.code == "bad_artifact"
    finally:
        engine.stop()


def test_what_is_not_there_or_not_ours_does_not_open() -> None:
    place = s3.bucket()
    made = sealed_in(place)
    with s3.environment(place):
        assert read_artifact(Reference.parse(TENANT, made.body)).config["items"] == made.config["items"]
        store_at(place).delete(f"{TENANT}/version-1/1")
        with pytest.raises(EngineRefusal) as refused:
            read_artifact(Reference.parse(TENANT, made.body))
        assert refused.value.code == "bad_artifact"
    with s3.environment(Place("s3://no-such-bucket/x", s3.endpoint(), "us-east-1", path_style=True)):
        body = {**made.body, "path": f"s3://no-such-bucket/x/{TENANT}/version-1/1"}
        with pytest.raises(EngineRefusal) as refused:
            read_artifact(Reference.parse(TENANT, body))
        assert refused.value.code == "unavailable"
