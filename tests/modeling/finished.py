"""One finished private job of a tenant of its own, and what the product hands out about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modeling.actions import receipts as actions
from modeling.core import receipts, verify
from modeling.models import Job, ModelVersion
from tenants.scope import scope
from tests.make import People
from tests.modeling.clinic import started, train, uploaded, words_csv


class Run:
    """One finished private job and what the product hands out about it."""

    def __init__(self, tiny_models: Path) -> None:
        from django.conf import settings

        self.people = People()
        self.tenant = self.people.acme
        self.api = self.people.api("acme")
        before, settings.MODELS_DIR = settings.MODELS_DIR, tiny_models
        try:
            file = uploaded(self.api, self.tenant, words_csv(800, people=400))
            first = started(self.api, file, privacy={"epsilon": 8, "unit": "person_id"})
            self.job: Job = train(self.tenant, first["id"])
        finally:
            settings.MODELS_DIR = before
        assert self.job.state == "succeeded", self.job.error
        with scope(self.tenant):
            self.version = ModelVersion.objects.of(self.tenant).get(job=self.job)
        path = f"/v1/models/{self.version.name}"
        self.receipt = self.api.get(f"{path}/receipt").json()
        self.card = self.api.get(f"{path}/card").json()
        self.ledger = self.api.get("/v1/privacy/ledger", format="chain").json()

    def signed(self) -> receipts.Signed:
        return verify.check_signature(self.receipt)[0]

    def resigned(self, statement: dict[str, Any]) -> receipts.Signed:
        """What a dishonest operator with the real key could sign."""
        envelope = receipts.sign(statement, actions.signing_key())
        return verify.check_signature(envelope)[0]
