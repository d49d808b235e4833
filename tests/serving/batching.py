"""What tests of batches are made of: files of requests, an engine on a tiny random encoder, slices run to the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from modeling.actions import batch_running
from modeling.core.bases import BASES
from modeling.models import Batch, File
from tenants import vault
from tenants.models import Tenant
from tenants.scope import scope

WORDS = 8_000
EMBED = "/v1/embeddings"


def make_encoder(models: Path) -> None:
    """A random encoder two layers deep, with BERT's special tokens in their places, as `minilm-l6`."""
    folder = models / BASES["minilm-l6"].folder_name
    folder.mkdir(parents=True)
    words = [f"word{number}" for number in range(WORDS)]
    for place, name in {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}.items():
        words[place] = name
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)


def request_line(number: int, body: dict[str, Any] | None = None, url: str = EMBED) -> dict[str, Any]:
    """One request for an embedding, or with another body."""
    body = body or {"model": "minilm-l6", "input": f"word{number % 60} word{number // 60 % 60}"}
    return {"custom_id": f"line {number}", "method": "POST", "url": url, "body": body}


def jsonl(lines: list[dict[str, Any]]) -> bytes:
    """The lines as a file."""
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def started(api: Any, content: bytes, endpoint: str = EMBED, **more: Any) -> str:
    """Upload a file of requests and start its batch through HTTP; the batch's id."""
    file = api.upload("requests.jsonl", content, "batch")
    assert file.status_code == 200, file.content
    body = {"input_file_id": file.json()["id"], "endpoint": endpoint, "completion_window": "24h", **more}
    answer = api.post("/v1/batches", body)
    assert answer.status_code == 200, answer.content
    return str(answer.json()["id"])


def run_all() -> int:
    """Run slices until no batch of any tenant wants one; how many."""
    slices = 0
    while batch_running.run_next():
        slices += 1
        assert slices < 1000
    return slices


def row(tenant: Tenant, public_id: str) -> Batch:
    """The batch's row."""
    with scope(tenant):
        return (
            Batch.objects.of(tenant)
            .select_related("output_file__object", "error_file__object", "file")
            .get(public_id=public_id)
        )


def change(tenant: Tenant, public_id: str, **values: Any) -> None:
    """Set columns of the batch's row."""
    with scope(tenant):
        Batch.objects.of(tenant).filter(public_id=public_id).update(**values)


def lines_of(file: File | None) -> list[dict[str, Any]]:
    """The JSON lines of an output or error file."""
    if file is None or file.object is None:
        return []
    with scope(file.tenant_id):
        content = vault.get(file.object)
    return [json.loads(line) for line in content.splitlines()]
