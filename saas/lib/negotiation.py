"""What a client accepts does not change what the API answers."""

from __future__ import annotations

from typing import Any

from rest_framework.negotiation import BaseContentNegotiation, DefaultContentNegotiation


class AnyAccept(BaseContentNegotiation):
    """One answer whatever the client accepts, as OpenAI's API; its own client asks for `application/binary`."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        """The parser of the body's media type."""
        return DefaultContentNegotiation().select_parser(request, parsers)

    def select_renderer(self, request: Any, renderers: Any, format_suffix: str | None = None) -> Any:
        """The view's first renderer."""
        return renderers[0], renderers[0].media_type
