"""/v1/models: base models and the tenant's own, their cards, and their deletion."""

from __future__ import annotations

from django.http import HttpResponse, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from modeling.actions import cards, downloads, receipts, versions
from modeling.core.bases import BASES
from modeling.models import ModelVersion
from modeling.queries.card_markdown import markdown
from modeling.serializers.models import base_body, version_body
from saas.lib.errors import Forbidden, NotFound, Refusal
from saas.lib.streamed import attachment
from tenants.access import ApiRequest, TenantAPIView
from tenants.models import Tenant
from tenants.scope import TenantQuerySet

OBJECT = {200: OpenApiTypes.OBJECT}
MARKDOWN = "text/markdown"


def versions_of(tenant: Tenant) -> TenantQuerySet[ModelVersion]:
    """The tenant's models that can be used."""
    return (
        ModelVersion.objects.of(tenant).filter(state=ModelVersion.State.READY).select_related("job", "tenant")
    )


class ModelsView(TenantAPIView):
    """All models that the caller can name."""

    scope_name = "models"

    @extend_schema(operation_id="listModels", responses=OBJECT, tags=["Models"])
    def get(self, request: ApiRequest) -> Response:
        """The tenant's own, newest first, then the base models; one page, as OpenAI's."""
        own = [version_body(version) for version in versions_of(request.auth.tenant).order_by("-pk")]
        return Response({"object": "list", "data": own + [base_body(base) for base in BASES]})


class ModelView(TenantAPIView):
    """One model."""

    scope_name = "models"

    @extend_schema(operation_id="getModel", responses=OBJECT, tags=["Models"])
    def get(self, request: ApiRequest, name: str) -> Response:
        """The model."""
        if name in BASES:
            return Response(base_body(name))
        return Response(version_body(versions.usable_version(request.auth.tenant, name)))

    @extend_schema(operation_id="deleteModel", responses=OBJECT, tags=["Models"])
    def delete(self, request: ApiRequest, name: str) -> Response:
        """Destroy a model's weights for good; its card and its place in the ledger stay."""
        if name in BASES:
            raise Forbidden("Base models cannot be deleted.")
        tenant = request.auth.tenant
        versions.delete_version(tenant, request.auth.actor, versions.usable_version(tenant, name))
        return Response({"id": name, "object": "model", "deleted": True})


class CardView(TenantAPIView):
    """One model's card."""

    scope_name = "models"

    @extend_schema(
        operation_id="getModelCard",
        responses={(200, "application/json"): OpenApiTypes.OBJECT, (200, MARKDOWN): OpenApiTypes.STR},
        parameters=[OpenApiParameter("format", str, enum=["json", "markdown"])],
        tags=["Models"],
    )
    def get(self, request: ApiRequest, name: str) -> Response | HttpResponse:
        """The card as JSON, or as Markdown when asked by `format` or Accept. `since` tells what came after it."""
        tenant = request.auth.tenant
        version = versions.usable_version(tenant, name)
        card = version.card | {"since": cards.since(tenant, version.job)}
        wanted = request.query_params.get("format") or _accepted(request)
        if wanted not in ("json", "markdown"):
            raise Refusal("format is json or markdown.", param="format")
        if wanted == "markdown":
            return HttpResponse(markdown(card), content_type=f"{MARKDOWN}; charset=utf-8")
        return Response(card)


def _accepted(request: Request) -> str:
    """What the client prefers, when it names Markdown and nothing we would rather send."""
    accept = request.headers.get("Accept", "")
    return "markdown" if MARKDOWN in accept and "json" not in accept else "json"


class ReceiptView(TenantAPIView):
    """One model's receipt."""

    scope_name = "models"

    @extend_schema(operation_id="getModelReceipt", responses=OBJECT, tags=["Models"])
    def get(self, request: ApiRequest, name: str) -> Response:
        """The signed statement about its training run: a DSSE envelope for `python -m modeling.core.verify`."""
        version = versions.usable_version(request.auth.tenant, name)
        if version.receipt is None:
            raise NotFound("This model was made before receipts were.", code="no_receipt")
        return Response(version.receipt)


class DownloadView(TenantAPIView):
    """One model to take away."""

    scope_name = "models"

    @extend_schema(
        operation_id="downloadModel",
        responses={(200, "application/zip"): OpenApiTypes.BINARY},
        parameters=[OpenApiParameter("with_base", bool, description="Put the whole base model in too.")],
        tags=["Models"],
    )
    def get(self, request: ApiRequest, name: str) -> StreamingHttpResponse:
        """Weights in open formats, tokenizer, card, receipt and a predict.py that runs without this service."""
        tenant = request.auth.tenant
        with_base = request.query_params.get("with_base", "false").lower()
        if with_base not in ("true", "false", "1", "0"):
            raise Refusal("with_base is true or false.", param="with_base")
        made = downloads.download(
            tenant,
            request.auth.actor,
            versions.usable_version(tenant, name),
            with_base=with_base in ("true", "1"),
        )
        return attachment(
            request._request, made.chunks, filename=made.filename, content_type="application/zip"
        )


class ReceiptKeysView(APIView):
    """The public keys of receipts."""

    authentication_classes = ()
    permission_classes = ()

    @extend_schema(operation_id="listReceiptKeys", responses=OBJECT, tags=["Models"], auth=[])
    def get(self, request: Request) -> Response:
        """Every key this installation has signed receipts with; open to all, since it names no tenant."""
        return Response({"object": "list", "data": receipts.public_keys()})
