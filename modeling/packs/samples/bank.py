"""Harbor Bank's demo files: synthetic messages by topic and synthetic conversations, from fixed seeds."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections.abc import Sequence
from typing import TypeVar

from modeling.packs.base import Sample
from modeling.packs.samples.bank_words import (
    ANSWERS,
    ASIDES,
    CLOSERS,
    FAREWELLS,
    FOLLOW_UPS,
    GREETINGS,
    OPENERS,
    SLOTS,
    TOPICS,
)

MESSAGES = 8_000
CUSTOMERS = 3_200
CONVERSATIONS = 5_000
SYSTEM = "You are the assistant of Harbor Bank. Answer in two or three plain sentences."
_SLOT = re.compile(r"\{(\w+)\}")
_NAMES = tuple(TOPICS)
_WEIGHTS = (9, 12, 13, 14, 12, 11, 9, 8, 7, 5)  # percent, in the order of TOPICS
T = TypeVar("T")


def _pick(source: random.Random, options: Sequence[T]) -> T:
    """One option; only `random()` is drawn from, whose stream no Python version changes."""
    return options[int(source.random() * len(options))]


def _topic(source: random.Random) -> str:
    at, total = source.random() * sum(_WEIGHTS), 0.0
    for name, weight in zip(_NAMES, _WEIGHTS, strict=True):
        total += weight
        if at < total:
            return name
    return _NAMES[-1]


def _fill(source: random.Random, sentence: str, reference: str) -> str:
    def value(match: re.Match[str]) -> str:
        slot = match.group(1)
        if slot == "amount":
            pounds = int(10 ** (0.8 + 2.6 * source.random()))
            return (
                f"£{pounds:,}"
                if source.random() < 0.5
                else f"{pounds}.{int(source.random() * 100):02d} pounds"
            )
        if slot == "digits":
            return f"{int(source.random() * 10_000):04d}"
        return reference if slot == "reference" else _pick(source, SLOTS[slot])

    return _SLOT.sub(value, sentence)


def _typo(source: random.Random, text: str) -> str:
    """Swap two neighbouring letters somewhere, as hurried people do."""
    at = 1 + int(source.random() * max(1, len(text) - 3))
    if not (text[at].isalpha() and text[at + 1 : at + 2].isalpha()):
        return text
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def _sentence(source: random.Random, topic: str, reference: str) -> str:
    text = _fill(source, _pick(source, TOPICS[topic]), reference)
    return (
        text[0].upper()
        + text[1:]
        + ("?" if text.startswith(("why", "what", "how", "can", "which", "when")) else ".")
    )


def _message(source: random.Random, topic: str, reference: str) -> str:
    """One customer's message; one in six also mentions another topic, one in seven has a typing error."""
    parts = [_fill(source, _pick(source, OPENERS), reference), _sentence(source, topic, reference)]
    if source.random() < 0.45:
        parts.append(_fill(source, _pick(source, ASIDES), reference))
    if source.random() < 1 / 6:
        parts.append("Also: " + _sentence(source, _topic(source), reference))
    parts.append(_fill(source, _pick(source, CLOSERS), reference))
    text = " ".join(part for part in parts if part)
    return _typo(source, text) if source.random() < 1 / 7 else text


def bank_messages() -> list[tuple[str, str, str]]:
    """(customer_id, message, topic), no message twice; a customer owns one to a dozen of them."""
    source = random.Random(20_260_101)  # noqa: S311 - a repeatable stream, nothing secret
    seen: set[str] = set()
    rows: list[tuple[str, str, str]] = []
    while len(rows) < MESSAGES:
        customer = int(CUSTOMERS * source.random() ** 1.5)  # some write far more often than others
        topic = _topic(source)
        text = _message(source, topic, f"HB-{int(source.random() * 1_000_000):06d}")
        if text not in seen:
            seen.add(text)
            rows.append((f"C{customer:05d}", text, topic))
    return rows


def bank_conversations() -> list[list[dict[str, str]]]:
    """Conversations of a system line, a customer's message and the bank's answer; a third go on for a second round."""
    source = random.Random(20_260_102)  # noqa: S311 - a repeatable stream, nothing secret
    seen: set[str] = set()
    found: list[list[dict[str, str]]] = []
    while len(found) < CONVERSATIONS:
        topic, reference = _topic(source), f"HB-{int(source.random() * 1_000_000):06d}"
        question = _message(source, topic, reference)
        if question in seen:
            continue
        seen.add(question)
        parts = (
            _pick(source, GREETINGS),
            _pick(source, ANSWERS[topic]),
            _fill(source, _pick(source, FAREWELLS), reference),
        )
        turns = [("system", SYSTEM), ("user", question), ("assistant", " ".join(parts))]
        if source.random() < 1 / 3:
            asked, answered = _pick(source, FOLLOW_UPS)
            turns += [("user", asked), ("assistant", _fill(source, answered, reference))]
        found.append([{"role": role, "content": content} for role, content in turns])
    return found


def bank_csv() -> bytes:
    """The messages as UTF-8 CSV with the columns customer_id, message, topic."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(("customer_id", "message", "topic"))
    writer.writerows(bank_messages())
    return sink.getvalue().encode()


def bank_jsonl() -> bytes:
    """The conversations as JSON lines in OpenAI's `messages` form."""
    lines = (json.dumps({"messages": turns}, ensure_ascii=False) for turns in bank_conversations())
    return ("\n".join(lines) + "\n").encode()


BANK_MESSAGES = Sample(
    slug="bank-messages",
    title="Customer messages by topic (synthetic)",
    filename="harbor-bank-messages-synthetic.csv",
    purpose="fine-tune",
    format="csv",
    task="classification",
    columns={"text": "message", "label": "topic", "unit": "customer_id"},
    unit="customer_id",
    rows=MESSAGES,
    sha256="7d4acde0674d5cba768daec639814e4f327fdc49bcec785509e7c1905ad9ff85",
    is_synthetic=True,
    licence="Synthetic, made by Cloister's seeded generator: free to use.",
    about="Synthetic: written by a seeded generator. No customer, message or account in it is real.",
    build=bank_csv,
)
BANK_CONVERSATIONS = Sample(
    slug="bank-conversations",
    title="Support conversations (synthetic)",
    filename="harbor-bank-conversations-synthetic.jsonl",
    purpose="fine-tune",
    format="jsonl",
    task="chat",
    columns={"messages": "messages"},
    unit="",
    rows=CONVERSATIONS,
    sha256="f3c972973e81a3537ad228fd474cb2091b1228c4b67c00b2faf807d07288fa05",
    is_synthetic=True,
    licence="Synthetic, made by Cloister's seeded generator: free to use.",
    about="Synthetic: written by a seeded generator; each conversation stands for one person.",
    build=bank_jsonl,
)
