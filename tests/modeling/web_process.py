"""The web process as `manage.py up` starts it, on this run's database, to be killed; and a raw client to its parts."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from modeling.serving.addresses import ALL, UnixAddress
from saas.processes import free_port, port_is_free, wait_until
from saas.stack import CONNECTIONS, Stack

BOUNDARY = "part-of-an-upload"


class WebProcess:
    """`uvicorn saas.asgi:application` with the words of saas/stack.py."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.port = free_port()
        socket = folder / "engine.sock"
        places = {ALL: (UnixAddress(socket),)}
        given = {name: os.environ[name] for name in CONNECTIONS if name in os.environ}
        root = Path(settings.BASE_DIR)
        stack = Stack(root, folder, Path(settings.MODELS_DIR), socket, places, "127.0.0.1", self.port, given)
        child = stack.web()
        self._command, self._root = [str(word) for word in child.command], root
        self._env = {**child.env, "METRICS_PORT": "0", **environment}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "web.log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command, env=self._env, cwd=self._root, stdout=log, stderr=log
            )
        assert wait_until(self._answers, seconds=60, pause=0.05), (self.folder / "web.log").read_text()

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "web.log").read_text()
        return not port_is_free(self.port)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        """SIGTERM."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)


@contextmanager
def web_process(folder: Path, **environment: str) -> Iterator[WebProcess]:
    """A web process that answers, stopped at the end."""
    web = WebProcess(folder, **environment)
    web.start()
    try:
        yield web
    finally:
        web.stop()


@dataclass
class Sender:
    """Speaks to /v1/uploads; a request can be left half-sent or unanswered."""

    port: int
    key: str

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """A call in JSON; its answer must be a good one."""
        status, answer = self.try_to(method, path, body)
        assert status == 200, (method, path, status, answer)
        return answer

    def try_to(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """A call in JSON: status and answer."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = self._headers({"Content-Type": "application/json"})
        try:
            link.request(method, f"/v1/{path}", None if body is None else json.dumps(body), headers)
            answer = link.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            link.close()

    def begun(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        share: float,
        *,
        length: int | None = None,
    ) -> Any:
        """A connection on which a share of the body was sent, and whose answer nobody has read.

        `length`: of a body that the caller sends by itself.
        """
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        link.putrequest(method, f"/v1/{path}")
        for name, value in (self._headers(headers) | {"Content-Length": str(length or len(body))}).items():
            link.putheader(name, value)
        link.endheaders()
        link.send(body[: int(share * len(body))])
        return link

    def part(self, upload: str, content: bytes, share: float = 1.0, **fields: Any) -> Any:
        """The connection of one part, of which so much is sent."""
        body = multipart(content, fields)
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        return self.begun("POST", f"uploads/{upload}/parts", body, headers, share)

    def send_part(self, upload: str, content: bytes, **fields: Any) -> str:
        """One part, sent and answered; its id."""
        return str(self.answered(self.part(upload, content, **fields))["id"])

    @staticmethod
    def answered(link: Any) -> dict[str, Any]:
        """The answer to a request that was sent; it must be a good one."""
        answer = link.getresponse()
        body = json.loads(answer.read())
        link.close()
        assert answer.status == 200, body
        return dict(body)

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}", "Connection": "close", **headers}


def multipart(content: bytes, fields: Mapping[str, Any]) -> bytes:
    """A form with these fields and the part in `data`."""
    texts = "".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    head = (
        f'{texts}--{BOUNDARY}\r\nContent-Disposition: form-data; name="data"; filename="part"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
