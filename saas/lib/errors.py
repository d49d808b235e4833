"""Two families of error: a Refusal is expected and speaks to the user; anything else is a bug and rises."""

from __future__ import annotations

from typing import Any


class Refusal(Exception):
    """A refusal with an HTTP status, a machine code and one sentence that says what to do."""

    status = 400
    code = "invalid_request"
    kind = "invalid_request_error"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        kind: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status or type(self).status
        self.code = code or type(self).code
        self.kind = kind or type(self).kind
        self.param = param
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """The error body of the OpenAI API."""
        return {
            "error": {"message": str(self.message), "type": self.kind, "param": self.param, "code": self.code}
        }


class NotFound(Refusal):
    """No such thing for this caller: the same answer whether it is absent or a stranger's."""

    status = 404
    code = "not_found"


class Forbidden(Refusal):
    """The caller is known and may not do this."""

    status = 403
    code = "forbidden"
    kind = "permission_error"


class Unauthenticated(Refusal):
    """No usable credential; one body for unknown, expired and revoked keys."""

    status = 401
    code = "invalid_api_key"
    kind = "authentication_error"


class Conflict(Refusal):
    """The thing is in a state in which this cannot be done."""

    status = 409
    code = "conflict"
