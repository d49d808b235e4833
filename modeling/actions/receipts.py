"""The receipt of a finished run: filled from ledger, plan and commitment, signed with this installation's key."""

from __future__ import annotations

import os
import platform
import secrets
from datetime import datetime
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings

from modeling.actions import chain
from modeling.actions.accounts import ROW_UNIT
from modeling.actions.privacy import ADJACENCY, NOISE, SAMPLERS, Cost
from modeling.core import accounting, canonical, receipts
from modeling.core.bases import BASES
from modeling.core.types import Plan, Trained
from modeling.models import Job, PrivacyEntry
from modeling.plans import dump_recipe, load_plan
from saas.lib import env
from tenants.models import Tenant

LIBRARIES = (
    "cryptography",
    "dp-accounting",
    "numpy",
    "opacus",
    "peft",
    "safetensors",
    "scipy",
    "torch",
    "transformers",
)
# Read when the process starts: what runs is the code as it was then.
SOURCE = receipts.source_digest(Path(settings.BASE_DIR))
VERSIONS = {name: version_of(name) for name in LIBRARIES}
IMAGE = env.text("IMAGE_DIGEST")


def signing_key() -> Ed25519PrivateKey:
    """This installation's key, made once with mode 0600 where RECEIPT_KEY_FILE says.

    Raises PermissionError when others may read it, ValueError when it is no Ed25519 key.
    """
    file = Path(settings.RECEIPT_KEY_FILE)
    if not file.exists():
        _make(file)
    with file.open("rb") as source:
        if os.fstat(source.fileno()).st_mode & 0o077:
            raise PermissionError(f"The receipt key {file} must be readable by its owner only: chmod 600.")
        key = receipts.private_key(source.read())
    _publish(receipts.public_part(key))
    return key


def _make(file: Path) -> None:
    """The file appears whole or not at all, also when several processes start at once: the first one's key counts."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
        new.write(receipts.new_key())
        new.flush()
        os.fsync(new.fileno())
    try:
        os.link(draft, file)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _published() -> Path:
    """Public keys stay here after a change of key: older receipts are still checked against them."""
    return Path(settings.DATA_DIR) / "receipt_keys"


def _publish(raw: bytes) -> None:
    file = _published() / f"{receipts.key_id(raw)}.pem"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
        draft.write_text(receipts.public_pem(raw))
        draft.replace(file)  # whole or not at all: another process lists these files meanwhile


def public_keys() -> list[dict[str, Any]]:
    """Every public key that this installation has signed with; the one in use first."""
    current = receipts.public_part(signing_key())
    raws = {receipts.public_key(file.read_bytes()) for file in _published().glob("*.pem")} - {current}
    return [
        {
            "object": "receipt_key",
            "keyid": receipts.key_id(raw),
            "algorithm": "ed25519",
            "pem": receipts.public_pem(raw),
            "is_current": raw == current,
        }
        for raw in [current, *sorted(raws)]
    ]


def build_receipt(
    tenant: Tenant,
    job: Job,
    trained: Trained,
    cost: Cost,
    *,
    name: str,
    sha256: str,
    card: dict[str, Any],
    finished_at: datetime,
) -> dict[str, Any]:
    """The signed envelope; in the transaction that settles the ledger, after the settling entry was written."""
    plan = load_plan(job.plan)
    predicate = {
        "format": receipts.FORMAT,
        "model": name,
        "tenant": tenant.slug,
        "job": job.public_id,
        "task": job.task,
        "method": plan.method,
        "base": _base(job.base),
        "data": _data(job, plan),
        "code": {"cloister": settings.VERSION, "source": SOURCE, "image": IMAGE or None, "libraries": VERSIONS,
                 "python": platform.python_version()},
        "recipe": canonical.exact(dump_recipe(plan.recipe)),
        "settings": canonical.exact(dict(plan.settings)),
        "privacy": _privacy(plan, cost),
        "ledger": _ledger(tenant, job),
        "run": _run(job, plan, trained, finished_at),
        "audit": canonical.exact(trained.report.get("audit")),
    }  # fmt: skip
    subjects = {receipts.ARTEFACT: sha256, receipts.CARD: canonical.digest(card)}
    return receipts.sign(receipts.statement(subjects, predicate), signing_key())


def _base(base_id: str) -> dict[str, Any]:
    """The base model by the digests it is installed from; a table needs none."""
    base = BASES.get(base_id)
    if base is None:
        return {"id": base_id}
    return {
        "id": base.id,
        "digest": base.digest,
        "revision": base.revision,
        "licence": base.licence,
        "files": {name: {"sha256": digest} for name, digest in base.files.items()},
    }


def _data(job: Job, plan: Plan) -> dict[str, Any]:
    version = job.dataset_version
    assert version is not None  # a job that trained was admitted
    return {
        "dataset": version.dataset.public_id,
        "version": version.number,
        "content_hash": version.content_hash,
        "unit": plan.recipe.unit or ROW_UNIT,
        "commitment": job.commitment,
    }


def _privacy(plan: Plan, cost: Cost) -> dict[str, Any]:
    """What ran, as numbers from which anyone can work epsilon out again."""
    if not plan.mechanisms:
        return {
            "mode": "off", "reason": plan.recipe.privacy_off_reason, "mechanisms": [],
            "epsilon": None, "epsilon_replace_one": None, "delta": None,
        }  # fmt: skip
    planned = {mechanism.name: mechanism.count for mechanism in plan.mechanisms}
    return {
        "mode": "on",
        "adjacency": ADJACENCY,
        "epsilon": _hex(cost.epsilon),
        "epsilon_replace_one": _hex(cost.epsilon_replace_one),
        "epsilon_asked": _hex(plan.recipe.epsilon),
        "delta": plan.delta.hex(),
        "accountant": f"PLD, interval {accounting.PLD_INTERVAL}; the exact Gaussian curve for full batches; "
        "Renyi for private selection",
        "sampler": SAMPLERS[any(one.sampling_rate < 1 for one in plan.mechanisms)],
        "noise": NOISE,
        "mechanisms": [
            receipts.mechanism_record(one, planned=planned[one.name]) for one in cost.plan.mechanisms
        ],
    }


def _hex(value: float | None) -> str | None:
    return None if value is None else float(value).hex()


def _ledger(tenant: Tenant, job: Job) -> dict[str, Any]:
    """The job's entries by number and hash, and the head as it stands now, locked."""
    head = chain.lock(tenant)
    own = PrivacyEntry.objects.of(tenant).filter(job=job).order_by("seq")
    return {
        "entries": [{"seq": seq, "hash": found} for seq, found in own.values_list("seq", "entry_hash")],
        "head": {"seq": head.seq, "hash": head.entry_hash},
    }


def _run(job: Job, plan: Plan, trained: Trained, finished_at: datetime) -> dict[str, Any]:
    return {
        "started_at": job.started_at.isoformat() if job.started_at else None,
        "finished_at": finished_at.isoformat(),
        "owners": job.epoch,
        "steps": trained.steps,
        "steps_planned": plan.steps,
        "device": str(plan.settings.get("device", "cpu")),
        "machine": platform.machine(),
    }
