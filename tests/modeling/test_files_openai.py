"""The official OpenAI client, unmodified, does files against our API over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import openai
import pytest
from django.core.wsgi import get_wsgi_application

from tests.modeling.test_files_api import CLINIC, inspect


class Quiet(WSGIRequestHandler):
    """No lines on standard error."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def client(people: Any, acme: Any) -> Iterator[openai.OpenAI]:
    """The client with only base_url and api_key changed."""
    server = make_server("127.0.0.1", 0, get_wsgi_application(), handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield openai.OpenAI(
            base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key=people.key(acme), max_retries=0
        )
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()


def test_it_works(acme: Any, client: openai.OpenAI) -> None:
    made = client.files.create(file=("notes.csv", CLINIC), purpose="fine-tune")
    assert (made.object, made.filename, made.bytes, made.status) == (
        "file",
        "notes.csv",
        len(CLINIC),
        "uploaded",
    )
    inspect(acme, made.id)
    assert client.files.retrieve(made.id).status == "processed"
    assert client.files.wait_for_processing(made.id).id == made.id
    assert client.files.content(made.id).content == CLINIC
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError) as caught:
        client.files.retrieve(made.id)
    assert caught.value.code == "not_found"


def test_lists_turn_their_pages(client: openai.OpenAI) -> None:
    made = [client.files.create(file=(f"{n}.csv", b"a,b\n1,2\n"), purpose="fine-tune").id for n in range(5)]
    assert [one.id for one in client.files.list(limit=2)] == made[::-1]


def test_errors_have_the_clients_types(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.files.create(file=("a.csv", b"a,b\n1,2\n"), purpose="assistants")
    assert (caught.value.code, caught.value.param) == ("invalid_purpose", "purpose")
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="ck_live_wrong").files.list()
