"""The stand-in's HTTP side: the few Stripe calls that the product makes, plus the two pages a payer would see."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from billing.standin import calls, pages
from billing.standin.check import BadParameter, check, decode_form
from billing.standin.hooks import Sender
from billing.standin.state import Missing, State


class Handler(BaseHTTPRequestHandler):
    """One request; `server` carries the state and the webhook sender."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Reads and pages."""
        self._answer("GET")

    def do_POST(self) -> None:
        """Calls and the pages' buttons."""
        self._answer("POST")

    def do_DELETE(self) -> None:
        """Cancellation."""
        self._answer("DELETE")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
        """Quiet."""

    def _answer(self, method: str) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        form = self.rfile.read(length).decode()
        pairs = parse_qsl(form if method == "POST" else parts.query, keep_blank_values=True)
        if not parts.path.startswith("/v1/"):
            self._page(method, parts.path, dict(pairs))
            return
        try:
            status, body = self._call(method, parts.path, decode_form(pairs))
        except BadParameter as error:
            status, body = 400, _error(str(error), param=error.param)
        except Missing as error:
            status, body = 404, _error(f"No such object: {error.args[0]}", code="resource_missing")
        self._send(status, json.dumps(body).encode(), "application/json")

    def _call(self, method: str, path: str, values: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if not self.headers.get("Authorization", "").startswith("Bearer sk_"):
            return 401, _error("Invalid API Key provided.")
        found = calls.find(method, path.removeprefix("/v1"))
        if found is None:
            return 404, _error(f"The stand-in does not speak {method} {path}.")
        call, identity, params = found
        values.pop("expand", None)
        if params is not None:
            check(values, params)
        return 200, call(self.server, identity, values)

    def _page(self, method: str, path: str, values: dict[str, str]) -> None:
        try:
            answer = (
                pages.show(self.server, path) if method == "GET" else pages.press(self.server, path, values)
            )
        except Missing:
            self._send(404, b"No such page.", "text/plain")
            return
        if answer.startswith(("http://", "https://")):
            self.send_response(303)
            self.send_header("Location", answer)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._send(200, answer.encode(), "text/html; charset=utf-8")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """The stand-in as a server; `base` is its own address, for the pages' links."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], state: State, sender: Sender) -> None:
        super().__init__(address, Handler)
        self.state = state
        self.sender = sender
        self.base = f"http://{address[0]}:{self.server_address[1]}"


def _error(message: str, **more: str) -> dict[str, Any]:
    return {"error": {"type": "invalid_request_error", "message": message, **more}}


Call = Callable[[Server, str, dict[str, Any]], dict[str, Any]]
