"""The hot calls by their path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from modeling.serving.gateway_call import Call
from modeling.serving.gateway_chat import chat
from modeling.serving.gateway_classify import classify
from modeling.serving.gateway_embed import embed
from modeling.serving.gateway_fields import Fields
from modeling.serving.gateway_recommend import recommend

CALLS: dict[str, Callable[[Call, Fields], Awaitable[None]]] = {
    "/v1/classify": classify,
    "/v1/recommend": recommend,
    "/v1/embeddings": embed,
    "/v1/chat/completions": chat,
}
