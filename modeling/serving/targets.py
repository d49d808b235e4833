"""What a model name means for a tenant: a base, one of its versions, or what an endpoint points at."""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modeling.core.bases import BASES
from modeling.core.heads import TABULAR
from modeling.core.personal_policy import Policy, of_rule
from modeling.models.endpoints import DefaultRules, Endpoint
from modeling.models.versions import ModelVersion
from saas.lib.errors import NotFound, Refusal
from tenants import vault
from tenants.scope import scope

MAX_NAME = 200
_CHANCE = random.Random()  # noqa: S311 - which of two versions answers: no secret hangs on it
ENCODER, DECODER = "minilm-l6", "smollm2-135m"
_BARE = {ENCODER: "embedding", DECODER: "chat"}  # what a base does by itself


@dataclass(frozen=True, slots=True)
class Target:
    """Where to find a model and what opens it; a base has no version."""

    model: str  # the name to answer with: an endpoint answers with its version's name
    base: str
    task: str  # classification | recommendation | chat; "" for a base
    version: str = ""
    path: str = ""
    key: bytes = field(default=b"", repr=False)
    context: tuple[str, str, int] = ("", "", 0)
    method: str = ""  # how the version was trained
    id_key: bytes = field(default=b"", repr=False)  # for the ids of a recommender's lists

    def body(self) -> dict[str, Any]:
        """The engine's fields for this target."""
        if not self.version:
            return {"base": self.base}
        artifact = {
            "version": self.version,
            "path": self.path,
            "key": self.key,
            "context": list(self.context),
        }
        return {"base": self.base, "artifact": artifact}


@dataclass(frozen=True, slots=True)
class Rules:
    """What happens to the texts of a request: `personal_data` off, note, mask or block; days that a log keeps them."""

    personal_data: str = "off"
    log_days: int = 0  # 0: nothing of a request or an answer is kept
    personal_kinds: Mapping[str, str] = field(default_factory=dict)  # choices for single kinds

    @property
    def policy(self) -> Policy:
        """What is done with each kind of personal data."""
        return of_rule(self.personal_data, self.personal_kinds)


@dataclass(frozen=True, slots=True)
class Route:
    """What a model name means: who answers, who answers `canary_percent` % in its place, and who only listens."""

    target: Target
    canary: Target | None = None
    canary_percent: int = 0
    shadow: Target | None = None
    endpoint: str = ""  # the id of the endpoint; "" for a base or a version called by its own name
    rules: Rules = Rules()

    def pick(self) -> Target:
        """The target of one request."""
        if self.canary is not None and _CHANCE.random() * 100 < self.canary_percent:
            return self.canary
        return self.target


def _unknown() -> NotFound:
    """One answer for a name that nobody has and for a name that only a stranger has."""
    return NotFound(
        "The model does not exist, or you do not have access to it. GET /v1/models and /v1/endpoints list yours.",
        code="model_not_found",
        param="model",
    )


def serving_target(tenant_id: uuid.UUID, model: str) -> Target:
    """The one that answers to `model` for this tenant, whatever share a canary has; raises NotFound. Blocking."""
    return serving_route(tenant_id, model).target


def serving_route(tenant_id: uuid.UUID, model: str) -> Route:
    """The route of `model` for this tenant; raises NotFound. Opens the tenant's scope; blocking."""
    if not model or len(model) > MAX_NAME or "\0" in model:
        raise _unknown()
    with scope(tenant_id):
        if model in BASES:
            return Route(Target(model=model, base=model, task=""), rules=_own_name_rules(tenant_id))
        if model.startswith("ft:"):
            versions = ModelVersion.objects.of(tenant_id).select_related("object")
            target = _target(versions.filter(name=model).first())
            if target is None:
                raise _unknown()
            return Route(target, rules=_own_name_rules(tenant_id))
        endpoints = Endpoint.objects.of(tenant_id).filter(name=model)
        endpoint = endpoints.select_related("version__object", "canary__object", "shadow__object").first()
        target = _target(endpoint.version) if endpoint is not None else None
        if endpoint is None or target is None:
            raise _unknown()
        return Route(
            target,
            canary=_target(endpoint.canary),
            canary_percent=endpoint.canary_percent,
            shadow=_target(endpoint.shadow),
            endpoint=str(endpoint.pk),
            rules=Rules(endpoint.personal_data, endpoint.log_days, endpoint.personal_kinds),
        )


def _own_name_rules(tenant_id: uuid.UUID) -> Rules:
    found = DefaultRules.objects.of(tenant_id).first()
    return Rules() if found is None else Rules(found.personal_data, found.log_days, found.personal_kinds)


def _target(version: ModelVersion | None) -> Target | None:
    """Where a version lies and what opens it; None for none, and for one whose key was destroyed."""
    if version is None or version.object is None or version.state != ModelVersion.State.READY:
        return None
    try:
        key = vault.data_key(version.object)
    except vault.KeyDestroyed:
        return None
    place = vault.context(version.object)
    return Target(
        model=version.name,
        base=version.base,
        task=version.task,
        method=version.method,
        version=str(version.pk),
        path=vault.location(version.object),
        key=key,
        context=(place.tenant, place.object, place.version),
        id_key=id_key(version) if version.task == "recommendation" else b"",
    )


def id_key(version: ModelVersion) -> bytes:
    """What seals the ids of a recommender's lists; new data keys do not change it. In the tenant's scope."""
    return vault.derive(version.tenant_id, f"recommendation-ids|{version.pk}")


_CALLED_AT = {"chat": "chat/completions", "recommendation": "recommend"}


def require_task(target: Target, task: str) -> Target:
    """The target, if it does `task` ("embedding" is for any encoder); raises Refusal with what it does instead."""
    can = {target.task} if target.task else {_BARE.get(target.base, "")}
    if target.task == "regression":
        can.add("classification")  # one call answers rows of a table, with labels or with numbers
    if target.base == ENCODER and target.task == "classification":
        can.add("embedding")
    if task in can:
        return target
    if target.base == ENCODER and not target.task:
        hint = "It is a base model for embeddings; train a model of your own on it first."
    elif target.base == TABULAR and not target.task:
        hint = "It is not a model yet; train one on your columns first."
    else:
        does = target.task or "chat"
        hint = f"It is made for {does}: call it at /v1/{_CALLED_AT.get(does, 'classify')}."
    raise Refusal(f"This model cannot be called here. {hint}", code="wrong_task", param="model")
