"""A model to take away: one archive from the vault with card, receipt and predict.py, entered in the audit log."""

from __future__ import annotations

import json
import math
import threading
import uuid
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.conf import settings
from django.utils.translation import gettext as _

from modeling.actions import receipts
from modeling.core import artifacts, bases, export
from modeling.core.bases import BASES
from modeling.core.types import CoreError
from modeling.models import ModelVersion
from modeling.queries.card_markdown import markdown
from saas.lib.errors import NotFound, Refusal
from saas.lib.streamed import zipped
from tenants import audit, vault
from tenants.audit import Actor
from tenants.models import Tenant


@dataclass(frozen=True)
class Download:
    """An archive on its way: its file name and its bytes, made as they are read."""

    filename: str
    chunks: Iterator[bytes]


def download(tenant: Tenant, actor: Actor, version: ModelVersion, *, with_base: bool = False) -> Download:
    """The archive of a ready model; inside the tenant's scope, though the bytes may be read after it.

    The plaintext stays in memory. Raises NotFound for a deleted model, Refusal when its kind has no open form or too
    many are on their way.
    """
    if version.object is None or version.state != ModelVersion.State.READY:
        raise NotFound(_("There is no such model."), code="model_not_found", param="model")
    with _entering(tenant) as leave:
        files = _files_of(version, with_base=with_base)
        audit.record(tenant, actor, "model.download", version, with_base=with_base)
        name = version.name.replace(":", "-")
        return Download(
            f"{name}.zip", _Sent(zipped(name, ((one.path, one.blocks()) for one in files)), leave)
        )


def _files_of(version: ModelVersion, *, with_base: bool) -> list[export.File]:
    """Weights in memory, files of the base by their path."""
    assert version.object is not None  # the caller has looked
    content = vault.get(version.object)
    base = BASES.get(version.base)
    folder = bases.path(settings.MODELS_DIR, base.id) if base else None
    try:
        files = export.files(content, folder, source=base.source if base else "", with_base=with_base)
        kept = list(files)
    except CoreError as error:
        raise Refusal(error.message, code=error.code, status=409) from error
    return kept + _papers(version, content)


# Each archive holds its weights in memory until its reader has them, and a reader may be slow or stop reading.
MOST_OF_A_TENANT, MOST_AT_ONCE = 2, 6  # in one process
_lock = threading.Lock()
_under_way: Counter[uuid.UUID] = Counter()


class _Sent(Iterator[bytes]):
    """The chunks of an archive; it counts as under way until they are sent, closed or dropped."""

    def __init__(self, chunks: Iterator[bytes], leave: Callable[[], None]) -> None:
        self._chunks = chunks
        self.close = weakref.finalize(self, leave)

    def __next__(self) -> bytes:
        try:
            return next(self._chunks)
        except StopIteration:
            self.close()
            raise


@contextmanager
def _entering(tenant: Tenant) -> Iterator[Callable[[], None]]:
    """Count one more archive, and give what uncounts it; an error inside uncounts it at once. Raises Refusal (429)."""
    with _lock:
        if _under_way[tenant.pk] >= MOST_OF_A_TENANT or _under_way.total() >= MOST_AT_ONCE:
            raise Refusal(
                _("Other downloads are under way: take this one when they are done."),
                status=429, code="too_many_downloads", kind="requests", headers={"Retry-After": "30"},
            )  # fmt: skip
        _under_way[tenant.pk] += 1

    def leave() -> None:
        with _lock:
            _under_way[tenant.pk] -= 1
            if not _under_way[tenant.pk]:
                del _under_way[tenant.pk]

    try:
        yield leave
    except BaseException:
        leave()
        raise


def _papers(version: ModelVersion, content: bytes) -> list[export.File]:
    """Card, receipt, the key to check it by, and how to use all of it."""
    _tensors, config = artifacts.load(content)
    found = {
        "card.json": _json(version.card),
        "card.md": markdown(version.card).encode(),
        "README.md": readme(version, export.kind_of(config)).encode(),
    }
    if version.receipt is not None:
        found["receipt.json"] = _json(version.receipt)
        found["receipt_keys.json"] = _json(receipts.public_keys())
    return [export.File(path, data) for path, data in found.items()]


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def readme(version: ModelVersion, kind: export.Kind) -> str:
    """How to run, load and check a download; English, like the card."""
    privacy = version.card.get("privacy", {})
    base = version.card.get("base", {})
    guarantee = (
        f"Trained under differential privacy: epsilon {math.ceil(1000 * privacy['epsilon']) / 1000:g} at delta "
        f"{privacy['delta']:.3g}. The card says what that means."
        if privacy.get("mode") == "on"
        else "**Trained WITHOUT privacy.** It may reveal the people in its training data: guard it like that data."
    )
    return "\n".join(
        [
            f"# {version.name}",
            "",
            guarantee,
            "",
            "## Run it",
            "",
            "    pip install -r requirements.txt",
            f"    {kind.call}",
            "",
            *_files(version, kind, base),
            "## Check it",
            "",
            "    python -m modeling.core.verify receipt.json --card card.json --artefact artefact.safetensors",
            "",
            (
                "The verifier is part of the service's source code and needs nothing of the service. Compare the key "
                "that it names with `receipt_keys.json`, or better with the key you were given another way (`--key`)."
            ),
            "",
        ]
    )


def _files(version: ModelVersion, kind: export.Kind, base: dict[str, str]) -> list[str]:
    lines = [
        "## What is here",
        "",
        "- `artefact.safetensors`: the weights as the service keeps them, with their config in the metadata",
        "- `predict.py`: the service's own arithmetic in one file",
    ]
    if kind in (export.TEXT, export.CHAT):
        lines += [
            "- `tokenizer/`: of the base model",
            (
                '- `adapter/` (LoRA models): loads with `PeftModel.from_pretrained(base, "adapter")`; `model/` (full '
                "fine-tuning): a whole model for `from_pretrained`"
            ),
            f"- `base/` (if asked for): {base.get('name')}, {base.get('licence')}, {base.get('revision')}",
            "",
            (
                f"Without `base/`, predict.py takes the base model by its public name ({base.get('source')}). "
                "Outputs are the same only on the very base the model was trained on: where the service's copy was "
                "converted, as its revision says, take the download that has it."
            ),
        ]
    if version.method == "final_hidden":
        lines += [
            "",
            (
                "The adapter changes the last hidden state, h' = h + B A h + bias. As a LoRA it sits on the output "
                "layer W: lora_A = A, lora_B = W B, and lora_B's bias = W bias. Do not merge it into a model whose "
                "output layer shares the word vectors: untie them first."
            ),
        ]
    return [*lines, ""]
