"""A bucket to test against, on this machine: moto's server, started once a run where a test asks for it."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from saas.lib.object_store import Place

WORDS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@cache
def endpoint() -> str:
    """The server's address; it ends with the process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line for each request helps nobody
    server.start()
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


@cache
def _client() -> Any:
    import boto3

    os.environ.update(WORDS)
    return boto3.client("s3", endpoint_url=endpoint(), region_name="us-east-1")


def bucket(prefix: str = "cloister/objects") -> Place:
    """A new, empty bucket."""
    name = f"bucket-{secrets.token_hex(6)}"
    _client().create_bucket(Bucket=name)
    return Place(f"s3://{name}/{prefix}".rstrip("/"), endpoint(), "us-east-1", path_style=True)


@contextmanager
def environment(place: Place) -> Iterator[dict[str, str]]:
    """The variables that bring another process to the same store, also in this one's environment meanwhile."""
    names = {"OBJECT_STORE": place.url, "S3_ENDPOINT": place.endpoint, "S3_REGION": place.region}
    names["S3_PATH_STYLE"] = "1" if place.path_style else "0"
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield {**names, **WORDS}
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
