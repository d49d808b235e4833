"""Before an endpoint moves, the engine loads what will answer: a switch is warm, or it does not happen."""

from __future__ import annotations

from asgiref.sync import async_to_sync
from django.utils.translation import gettext as _

from modeling.models import ModelVersion
from modeling.serving.engines import ask_engines
from modeling.serving.targets import serving_target
from modeling.serving.wire import EngineRefusal
from saas.lib.errors import Conflict, Refusal
from tenants.models import Tenant

SECONDS = 20.0
_LATER = ("unavailable", "deadline", "busy")


def require_warm(tenant: Tenant, version: ModelVersion) -> None:
    """Return once the engine holds this version. Call outside of any transaction.

    Raises Conflict (409) where it cannot be loaded, and Refusal (503) where the engine does not answer.
    """
    target = serving_target(tenant.pk, version.name)
    try:
        async_to_sync(ask_engines)("warm", tenant=str(tenant.pk), seconds=SECONDS, **target.body())
    except EngineRefusal as refusal:
        if refusal.code in _LATER:
            raise Refusal(
                _("The model server does not answer, so nothing was changed. Try again shortly."),
                status=503,
                code="engine_unavailable",
                kind="server_error",
                headers={"Retry-After": "5"},
            ) from refusal
        raise Conflict(
            _("The model could not be loaded: %(why)s Nothing was changed.") % {"why": refusal.message},
            code="model_not_loadable",
        ) from refusal
