"""A small job whose rows have several labels: cells in CSV and JSON lines, through HTTP to the model and its card."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest

from modeling.actions.label_cells import split_cell
from modeling.core import artifacts
from modeling.models import Job
from tenants import vault
from tenants.scope import scope
from tests.modeling.clinic import row_of, started, train, uploaded

COMPLAINTS = {
    "fever": "The patient has a high temperature and chills.",
    "cough": "There is a dry cough that keeps them awake at night.",
    "fracture": "The X-ray shows a broken bone in the arm.",
}


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("fever|cough", ("fever", "cough")),
        (" fever ; cough;fever", ("fever", "cough")),
        ('["fever", "cough|dry"]', ("fever", "cough|dry")),
        (["fever", " cough "], ("fever", "cough")),
        ("[fever", ("[fever",)),
        ("", ()),
        (None, ()),
        ([], ()),
        ("|;|", ()),
        ([["nested"], {"a": 1}, "fever", 3], ("fever", "3")),
        ("[" * 100_000, ("[" * 100_000,)),
    ],
)
def test_cells(cell: object, names: tuple[str, ...]) -> None:
    assert split_cell(cell) == names


def _rows(count: int) -> list[tuple[str, list[str]]]:
    random = np.random.default_rng(3)
    rows = []
    for number in range(count):
        names = [name for name in COMPLAINTS if random.random() < 0.5]
        rows.append((" ".join([*(COMPLAINTS[name] for name in names), f"Visit {number}."]), names))
    return rows


def _csv(count: int, between: str = "|") -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["note", "complaints"])
    writer.writerows((text, between.join(names)) for text, names in _rows(count))
    return out.getvalue().encode()


def _jsonl(count: int) -> bytes:
    return "\n".join(json.dumps({"note": text, "complaints": names}) for text, names in _rows(count)).encode()


ASKED = {
    "task": "classification",
    "columns": {"text": "note", "label": "complaints"},
    "multi_label": True,
    "privacy": {"epsilon": 8, "unit": ""},
}


@pytest.mark.real_weights
@pytest.mark.parametrize(("name", "content"), [("notes.csv", _csv(500)), ("notes.jsonl", _jsonl(500))])
def test_a_job_of_several_labels_from_upload_to_card(api: Any, acme: Any, name: str, content: bytes) -> None:
    file_id = uploaded(api, acme, content, name=name)
    done = train(acme, started(api, file_id, **ASKED)["id"])
    assert done.state == Job.State.SUCCEEDED, done.error
    with scope(acme):
        version = row_of(acme, done.public_id).model_version
        tensors, config = artifacts.load(vault.get(version.object))
    assert config["multi_label"] is True
    assert config["labels"] == sorted(COMPLAINTS)
    assert tensors["head.weight"].shape == (3, 384)
    card = api.get(f"/v1/models/{version.name}/card").json()
    assert card["metrics"]["accuracy"] > 0.6
    assert any("overlap" in note for note in card["notes"])
    assert card["privacy"]["epsilon"] <= 8.0
    told = api.get(f"/v1/fine_tuning/jobs/{done.public_id}/events").json()["data"]
    assert any("overlap of labels" in event["message"] for event in told)


def test_the_quote_splits_cells_and_declares_the_names(api: Any, acme: Any) -> None:
    file_id = uploaded(api, acme, _csv(500, between="; "), name="notes.csv")
    quote = api.post("/v1/fine_tuning/quote", {"training_file": file_id, **ASKED})
    assert quote.status_code == 200, quote.content
    assert quote.json()["labels"] == sorted(COMPLAINTS)
    whole = api.post("/v1/fine_tuning/quote", {"training_file": file_id, **ASKED, "multi_label": False})
    assert "cough; fracture" in whole.json()["labels"]


def test_the_train_page_offers_several_labels(alice: Any, api: Any, acme: Any) -> None:
    uploaded(api, acme, _csv(500), name="notes.csv")
    page = alice.get(f"/t/{acme.slug}/training/new/").content.decode()
    assert 'name="multi_label"' in page


def test_lists_in_a_column_called_label(api: Any, acme: Any) -> None:
    rows = "\n".join(json.dumps({"text": text, "label": names}) for text, names in _rows(500))
    file_id = uploaded(api, acme, rows.encode(), name="notes.jsonl")
    asked = {**ASKED, "columns": {}}
    quote = api.post("/v1/fine_tuning/quote", {"training_file": file_id, **asked})
    if quote.status_code == 400:  # lists are not guessed to be labels; naming the column is enough
        asked["columns"] = {"text": "text", "label": "label"}
        quote = api.post("/v1/fine_tuning/quote", {"training_file": file_id, **asked})
    assert quote.status_code == 200, quote.content
    assert quote.json()["labels"] == sorted(COMPLAINTS)


def test_a_text_is_no_label(api: Any, acme: Any) -> None:
    """Two hundred texts of any length would otherwise be the names of a model, in its plan, card and pages."""
    lines = [f"text {row} of a note," + ("fever" if row % 2 else "x" * 201) for row in range(300)]
    file_id = uploaded(api, acme, "\n".join(["note,complaints", *lines]).encode(), name="notes.csv")
    asked = {"training_file": file_id, "columns": {"text": "note", "label": "complaints"}}
    for more in ({}, {"multi_label": True}):
        answer = api.post("/v1/fine_tuning/quote", {**asked, **more})
        assert answer.status_code == 400, answer.content
        assert answer.json()["error"]["param"] == "columns.label"
