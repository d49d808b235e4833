"""A catalogue's public columns reach the model: categories, numbers and lists, in the order of the items."""

from __future__ import annotations

import json
from typing import Any

from modeling.actions.rows import catalogue_columns, catalogue_items
from modeling.core.recommend_columns import Columns, encode
from modeling.core.types import Tensors
from modeling.models import DatasetVersion
from tenants.scope import scope
from tests.modeling.clinic import uploaded

ITEMS = 60


def test_columns_of_a_catalogue_are_read_beside_its_items(api: Any, acme: Any) -> None:
    rows = [
        {
            "item_id": f"I{number}",
            "text": f"a thing made of words number {number} for every room of the house",
            "category": ("shoes", "bags", "hats")[number % 3],
            "price": number / 2,
            "tags": ["sale"] if number % 5 == 0 else ["new", "sale"],
        }
        for number in range(ITEMS)
    ]
    content = "\n".join(map(json.dumps, rows)).encode()
    file_id = uploaded(api, acme, content, name="items.jsonl", purpose="user_data")
    with scope(acme):
        versions = DatasetVersion.objects.of(acme).select_related("dataset")
        version = versions.get(file__public_id=file_id)
        items, columns = catalogue_items(version), catalogue_columns(version)
    assert [item for item, _ in items] == [f"I{number}" for number in range(ITEMS)]
    assert set(columns) == {"category", "price", "tags"}
    more, written = encode({name: [cells[item] for item, _ in items] for name, cells in columns.items()})
    assert {name: facts["kind"] for name, facts in written.items()} == {
        "category": "category",
        "price": "number",
        "tags": "tags",
    }
    tensors: Tensors = more
    found = Columns(tensors, {"items": [item for item, _ in items], "columns": written})
    wanted = {"category": ["hats"], "price": {"max": 20}, "tags": ["new"]}
    assert found.kept(wanted).nonzero()[0].tolist() == [
        number for number in range(41) if number % 3 == 2 and number % 5
    ]
