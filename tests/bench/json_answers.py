"""Answers that follow a JSON schema, of 500: `python -m tests.bench.json_answers`.

smollm2-135m at temperature 1, 32 conversations at a time, through the engine's own runner; every answer is parsed and
checked by jsonschema. Each schema bounds its texts and numbers, so every answer ends by itself. The same questions
without a schema are the control.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import torch

from modeling.core import bases
from modeling.serving.asks import Ask
from modeling.serving.chatting import SLOTS, ChatRunner
from modeling.serving.store import ArtifactStore
from tests.serving.made import MODELS

ANSWERS, CONTROLS, MAX_TOKENS = 500, 50, 160
NAME = {"type": "string", "minLength": 1, "maxLength": 20}


def _object(**properties: Any) -> dict[str, Any]:
    names = sorted(properties)
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


SCHEMAS: dict[str, tuple[str, dict[str, Any]]] = {
    "triage": (
        "A patient has a cough for {n} days. How urgent is it?",
        _object(
            urgency={"enum": ["now", "today", "this week"]},
            days={"type": "integer", "minimum": 0, "maximum": 99},
        ),
    ),
    "person": (
        "Invent person number {n}.",
        _object(
            name=NAME, age={"type": "integer", "minimum": 0, "maximum": 120}, married={"type": "boolean"}
        ),
    ),
    "list": (
        "Name up to three colours for room {n}.",
        _object(
            colours={"type": "array", "items": {"enum": ["red", "green", "blue", "white"]}, "maxItems": 3}
        ),
    ),
    "money": (
        "What does parcel {n} cost?",
        _object(
            price={"type": "number", "minimum": 0, "maximum": 100, "multipleOf": 0.25},
            currency={"type": "string", "pattern": "^[A-Z]{3}$"},
        ),
    ),
    "date": (
        "When is appointment {n}?",
        _object(day={"type": "string", "format": "date"}, room={"type": ["string", "null"], "maxLength": 6}),
    ),
    "nested": (
        "Where does customer {n} live?",
        {
            "$defs": {"place": _object(city=NAME, zip={"type": "string", "pattern": "^[0-9]{5}$"})},
            **_object(
                home={"$ref": "#/$defs/place"}, work={"anyOf": [{"$ref": "#/$defs/place"}, {"type": "null"}]}
            ),
        },
    ),
}


async def _answer(runner: ChatRunner, number: int, schema: dict[str, Any] | None) -> tuple[str, str]:
    names = sorted(SCHEMAS)
    question, _ = SCHEMAS[names[number % len(names)]]
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": question.format(n=number) + " Answer in JSON."}],
        "max_tokens": MAX_TOKENS,
        "seed": number,
    }
    if schema is not None:
        named = {"name": "answer", "schema": schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    texts: list[str] = []

    async def send(part: dict[str, Any]) -> None:
        texts.append(part["text"])

    ask = Ask("chat", f"tenant-{number}", body, asyncio.get_running_loop().time() + 600)
    end = await runner.chat(ask, send)
    return "".join(texts), str(end["finish"])


def _is_valid(text: str, schema: dict[str, Any]) -> bool:
    try:
        jsonschema.validate(json.loads(text), schema, format_checker=jsonschema.FormatChecker())
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


async def _count(runner: ChatRunner, answers: int, *, constrained: bool) -> Counter[str]:
    """How many were valid, were cut, and were neither, with the reasons' names."""
    gate, found = asyncio.Semaphore(2 * SLOTS), Counter[str]()

    async def one(number: int) -> None:
        _, schema = SCHEMAS[sorted(SCHEMAS)[number % len(SCHEMAS)]]
        async with gate:
            text, finish = await _answer(runner, number, schema if constrained else None)
        valid = _is_valid(text, schema)
        found.update(valid=valid, cut=finish == "length", wrong=not valid and finish != "length")
        if constrained and not valid:
            print(f"  not valid ({finish}): {text!r}")

    await asyncio.gather(*(one(number) for number in range(answers)))
    return found


async def _run() -> None:
    side = ThreadPoolExecutor(2, "side")
    runner = await ChatRunner.load(bases.path(MODELS, "smollm2-135m"), ArtifactStore(side), side)
    running = asyncio.create_task(runner.run())
    print(f"{'':34}{'valid':>10}{'cut':>8}{'CPU s':>8}{'tokens':>8}{'asked':>14}")
    for name, answers, constrained, asked in (
        ("with response_format", ANSWERS, True, f"{ANSWERS} of {ANSWERS}"),
        ("without (control)", CONTROLS, False, "-"),
    ):
        began, tokens = time.process_time(), runner.tokens
        found = await _count(runner, answers, constrained=constrained)
        spent, made = time.process_time() - began, runner.tokens - tokens
        valid = f"{found['valid']} / {answers}"
        print(f"{name:34}{valid:>10}{found['cut']:8}{spent:8.0f}{made:8}{asked:>14}")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    runner.close()


def main() -> None:
    """Both counts."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    asyncio.run(_run())


if __name__ == "__main__":
    main()
