"""The stand-in is strict: what Stripe's typed parameters do not allow, it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import stripe
from stripe.params import CustomerCreateParams, PriceCreateParams
from stripe.params.checkout import SessionCreateParams

from billing import gateway
from billing.standin.check import BadParameter, check, decode_form


def test_it_works(standin: Any) -> None:
    prices = gateway.ensure_catalogue()
    assert set(prices) == {"team", "business"}
    assert gateway.ensure_catalogue() == prices


@pytest.mark.parametrize(
    ("params", "values", "at"),
    [
        (CustomerCreateParams, {"nmae": "x"}, "nmae"),
        (CustomerCreateParams, {"address": {"town": "x"}}, "address[town]"),
        (PriceCreateParams, {"currency": "usd", "unit_amount": "ten"}, "unit_amount"),
        (PriceCreateParams, {}, "currency"),
        (SessionCreateParams, {"mode": "gift"}, "mode"),
        (SessionCreateParams, {"line_items": [{"price": "p", "amount": "3"}]}, "line_items[0][amount]"),
    ],
)
def test_wrong_parameters_are_refused(params: type, values: dict[str, Any], at: str) -> None:
    with pytest.raises(BadParameter) as refused:
        check(values, params)
    assert refused.value.param == at


def test_forms_are_decoded_as_stripe_does() -> None:
    pairs = [
        ("line_items[0][price]", "p"),
        ("line_items[0][quantity]", "1"),
        ("metadata[a]", "b"),
        ("mode", "subscription"),
    ]
    values = decode_form(pairs)
    assert values == {
        "line_items": [{"price": "p", "quantity": "1"}],
        "metadata": {"a": "b"},
        "mode": "subscription",
    }
    check(values, SessionCreateParams)


def test_unknown_objects_and_keys(standin: Any) -> None:
    client = stripe.StripeClient("sk_test_x", base_addresses={"api": standin.base}, max_network_retries=0)
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.subscriptions.retrieve("sub_none")
    stranger = stripe.StripeClient("pk_wrong", base_addresses={"api": standin.base}, max_network_retries=0)
    with pytest.raises(stripe.AuthenticationError):
        stranger.v1.customers.create({})
