"""What the stand-in remembers: customers, prices, sessions, subscriptions, invoices, meter events; in one file."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from threading import RLock
from typing import Any

MONTH_SECONDS = 30 * 24 * 3600


class Missing(KeyError):
    """No such object."""


class State:
    """Objects by kind and id, each a dict in Stripe's shape; every change is written through when a file is named."""

    def __init__(self, file: Path | None = None) -> None:
        self.lock = RLock()
        self._file = file
        self._objects: dict[str, dict[str, Any]] = {}
        if file is not None and file.exists():
            self._objects = json.loads(file.read_text())

    def put(self, kind: str, prefix: str, values: dict[str, Any]) -> dict[str, Any]:
        """A new object with a fresh id."""
        made = {
            "id": f"{prefix}_{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            **values,
        }
        with self.lock:
            self._objects.setdefault(kind, {})[made["id"]] = made
            self._save()
        return made

    def get(self, kind: str, identity: str) -> dict[str, Any]:
        """The object; raises Missing."""
        found = self._objects.get(kind, {}).get(identity)
        if found is None:
            raise Missing(identity)
        return dict(found)

    def change(self, kind: str, identity: str, **values: Any) -> dict[str, Any]:
        """Update an object and return it."""
        with self.lock:
            if identity not in self._objects.get(kind, {}):
                raise Missing(identity)
            self._objects[kind][identity].update(values)
            self._save()
            return dict(self._objects[kind][identity])

    def all(self, kind: str, **equal: Any) -> list[dict[str, Any]]:
        """Objects of a kind whose fields equal the given ones, newest first."""
        rows = [dict(row) for row in self._objects.get(kind, {}).values()]
        return [row for row in reversed(rows) if all(row.get(name) == value for name, value in equal.items())]

    def _save(self) -> None:
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(self._objects))
        new.replace(self._file)


def subscribe(state: State, customer: str, price: dict[str, Any], metadata: dict[str, str]) -> dict[str, Any]:
    """A new active subscription to a price, paid for one month of 30 days, with its invoice."""
    now = int(time.time())
    item = {
        "id": f"si_{secrets.token_hex(8)}",
        "object": "subscription_item",
        "price": price,
        "quantity": 1,
        "current_period_start": now,
        "current_period_end": now + MONTH_SECONDS,
    }
    made = state.put(
        "subscription",
        "sub",
        {
            "customer": customer,
            "status": "active",
            "cancel_at_period_end": False,
            "metadata": metadata,
            "items": {"object": "list", "data": [item], "has_more": False, "url": "/v1/subscription_items"},
        },
    )
    bill(state, made, status="paid")
    return made


def bill(state: State, subscription: dict[str, Any], *, status: str) -> dict[str, Any]:
    """An invoice over the subscription's price, `paid` or `open`."""
    price = subscription["items"]["data"][0]["price"]
    amount = price.get("unit_amount", 0)
    return state.put(
        "invoice",
        "in",
        {
            "customer": subscription["customer"],
            "subscription": subscription["id"],
            "status": status,
            "currency": "usd",
            "amount_due": amount,
            "amount_paid": amount if status == "paid" else 0,
        },
    )
