"""Cells of a table's rows under a personal-data rule: texts are looked through, numbers are what they are."""

from __future__ import annotations

from typing import Any

import pytest

from modeling.serving.gateway_call import Serving
from modeling.serving.gateway_http import Exchange
from modeling.serving.gateway_screen import screen_rows
from modeling.serving.targets import Route, Rules, Target
from saas.lib.errors import Refusal

ROWS = (
    {"note": "call +44 20 7946 0958", "income": 4111111111111111},
    {"note": None, "card number": "4111 1111 1111 1111"},
)


async def _nothing(*_given: Any) -> Any:
    return {}


def parties(rule: str) -> tuple[Exchange, Serving]:
    """An exchange, and a model on columns under this rule."""
    exchange = Exchange({"method": "POST", "path": "/v1/classify", "headers": []}, _nothing, _nothing)
    route = Route(Target("ft:x", "tabular", "classification"), rules=Rules(rule))
    return exchange, Serving(route, route.target)


@pytest.mark.asyncio
async def test_texts_are_masked_in_place() -> None:
    exchange, serving = parties("mask")
    rows, screened = await screen_rows(exchange, serving, ROWS)
    assert rows == [
        {"note": "call [PHONE]", "income": 4111111111111111},
        {"note": None, "card number": "[CARD]"},
    ]
    assert screened.note() == {"personal_data": {"policy": "mask", "found": {"phone": 1, "card": 1}}}
    assert ROWS[0]["note"] == "call +44 20 7946 0958"


@pytest.mark.asyncio
async def test_a_refusal_names_row_and_column_but_echoes_no_odd_name() -> None:
    exchange, serving = parties("block")
    with pytest.raises(Refusal) as refused:
        await screen_rows(exchange, serving, ROWS)
    assert refused.value.param == "inputs[0].note"
    assert "inputs[1] (card: 1)" in refused.value.message
    assert "card number" not in refused.value.message


@pytest.mark.asyncio
async def test_nothing_is_looked_at_under_off() -> None:
    exchange, serving = parties("off")
    rows, screened = await screen_rows(exchange, serving, ROWS)
    assert (rows, screened.note(), exchange.extra) == (list(ROWS), {}, {})
