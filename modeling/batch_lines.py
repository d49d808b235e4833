"""Lines of a batch file: read one by one, checked before anything runs, and the lines that answer them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Final

from modeling.serving.gateway_fields import Fields, parse
from saas.lib.errors import Refusal

LINES_MOST: Final = 50_000
FILE_BYTES_MOST: Final = 200 << 20
LINE_BYTES_MOST: Final = 8 << 20
CUSTOM_ID_CHARACTERS: Final = 512
ERRORS_KEPT: Final = 100
_READ_BYTES: Final = 1 << 18
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """One request: its physical line number from 1, and the byte offset at which the next line begins."""

    number: int
    end: int
    raw: bytes

    def request(self) -> tuple[str, dict[str, Any]]:
        """custom_id and body of a line that was checked."""
        fields = parse(self.raw)
        return str(fields.take("custom_id")), dict(fields.take("body"))


@dataclass(slots=True)
class Check:
    """What checking a whole file found: the number of requests, and why it is refused, if it is."""

    requests: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)

    def refuse(self, code: str, message: str, *, line: int | None = None, param: str | None = None) -> None:
        """Note a reason, up to the hundredth."""
        if len(self.errors) < ERRORS_KEPT:
            self.errors.append({"code": code, "line": line, "message": message, "param": param})


def read_lines(source: io.RawIOBase, *, offset: int = 0, number: int = 0) -> Iterator[Line]:
    """The lines that are not blank, from a byte offset on; `number` is that of the last line before it.

    A line that is longer than 8 MiB comes in pieces, which `check` refuses.
    """
    source.seek(offset)
    reader: IO[bytes] = io.BufferedReader(source, _READ_BYTES)
    while raw := reader.readline(LINE_BYTES_MOST + 1):
        number, offset = number + 1, offset + len(raw)
        text = raw.removeprefix(_BOM).strip() if number == 1 else raw.strip()
        if text:
            yield Line(number, offset, text)


def check(source: io.RawIOBase, endpoint: str) -> Check:
    """Look through a whole file before anything of it runs."""
    found, seen = Check(), set[str]()
    for line in read_lines(source):
        found.requests += 1
        if found.requests > LINES_MOST:
            found.refuse(
                "too_many_tasks", f"A batch file has at most {LINES_MOST:,} lines.", line=line.number
            )
            break
        if len(line.raw) > LINE_BYTES_MOST:
            found.refuse("line_too_long", "A line has at most 8 MiB.", line=line.number)
            break
        try:
            custom_id = _checked(line, endpoint)
        except Refusal as refusal:
            found.refuse(refusal.code, str(refusal.message), line=line.number, param=refusal.param)
            continue
        if custom_id in seen:
            message = "This custom_id stands on a line above, too. Give each line its own."
            found.refuse("duplicate_custom_id", message, line=line.number, param="custom_id")
        seen.add(custom_id)
    if not found.requests:
        found.refuse("empty_file", "The file has no requests.")
    return found


def _checked(line: Line, endpoint: str) -> str:
    """The custom_id of a well-formed line; raises Refusal without echoing any of it."""
    try:
        fields = parse(line.raw)
    except Refusal as refusal:
        message = "The line is not a JSON object in UTF-8. Write each request on one line."
        raise Refusal(message, code="invalid_json_line") from refusal
    custom_id = fields.text("custom_id", max_characters=CUSTOM_ID_CHARACTERS)
    if fields.take("method") != "POST":
        raise Refusal("method must be POST.", code="invalid_method", param="method")
    if fields.take("url") != endpoint:
        message = f"url must be {endpoint}, the call of this batch."
        raise Refusal(message, code="mismatched_endpoint", param="url")
    if not isinstance(fields.take("body"), dict):
        raise Refusal("body must be an object.", code="invalid_value", param="body")
    fields.finish()
    return custom_id


def body_fields(body: dict[str, Any]) -> Fields:
    """A request's body as the calls take it; raises Refusal for a stream, which a file cannot hold."""
    if body.get("stream"):
        raise Refusal("stream: answers of a batch come whole.", code="invalid_value", param="stream")
    return Fields(body)


def answer_line(request_id: str, custom_id: str, status: int, body: bytes) -> bytes:
    """A line of the output or error file for a request that was answered with one line of JSON; OpenAI's fields."""
    response = b'{"status_code":%d,"request_id":%s,"body":%s}' % (status, _json(request_id), body)
    return _line(request_id, custom_id, response, b"null")


def untried_line(request_id: str, custom_id: str, code: str, message: str) -> bytes:
    """A line of the error file for a request that was never tried."""
    return _line(request_id, custom_id, b"null", _json({"code": code, "message": message}))


def _line(request_id: str, custom_id: str, response: bytes, error: bytes) -> bytes:
    content = (_json(request_id), _json(custom_id), response, error)
    return b'{"id":%s,"custom_id":%s,"response":%s,"error":%s}\n' % content


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
