"""Chat streams token by token, several at once; leaving stops it; usage is counted; adapters stay with their tenant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import pytest_asyncio

from modeling.serving.client import EngineClient
from modeling.serving.wire import EngineRefusal, Kind
from tests.serving.made import Artifacts, EngineProcess

pytestmark = [pytest.mark.real_weights, pytest.mark.asyncio]
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
STORY = [{"role": "user", "content": "Tell me a long story about a lighthouse."}]


@pytest_asyncio.fixture
async def client(engine: EngineProcess) -> AsyncIterator[EngineClient]:
    made = EngineClient(engine.socket)
    yield made
    await made.close()


async def talk(
    client: EngineClient, messages: Any = QUESTION, *, tenant: str = "acme", **more: Any
) -> tuple[str, dict[str, Any]]:
    """The whole text and the end."""
    text, end = "", {}
    body = {"base": "smollm2-135m", "temperature": 0.0, "max_tokens": 24} | more
    async for kind, part in client.stream("chat", tenant=tenant, seconds=90, messages=messages, **body):
        if kind is Kind.PART:
            text += part["text"]
        else:
            end = part
    return text, end


async def test_it_works(client: EngineClient) -> None:
    text, end = await talk(client)
    assert "Paris" in text
    assert end["finish"] == "stop"
    assert end["prompt_tokens"] == 37
    assert 5 <= end["completion_tokens"] < 24


async def test_length_and_usage(client: EngineClient) -> None:
    parts = []
    async for kind, part in client.stream(
        "chat", tenant="acme", seconds=90, base="smollm2-135m", messages=STORY, max_tokens=9, temperature=0
    ):
        parts.append((kind, part))
    assert parts[-1][0] is Kind.DONE
    assert parts[-1][1] == {"finish": "length", "prompt_tokens": 39, "completion_tokens": 9}
    assert len(parts) > 5
    counts = [part["tokens"] for _, part in parts[:-1]]
    assert counts == sorted(counts)
    assert counts[-1] == 9


async def test_conversations_together_say_what_they_say_alone(client: EngineClient) -> None:
    asks = [
        [{"role": "user", "content": f"Name a colour that begins with the letter {letter}."}]
        for letter in "BGRYWP"
    ]
    alone = [await talk(client, ask, tenant=f"t{n}", max_tokens=8) for n, ask in enumerate(asks)]
    together = await asyncio.gather(
        *(talk(client, ask, tenant=f"t{n}", max_tokens=8) for n, ask in enumerate(asks))
    )
    # bfloat16 sums depend on the batch's shape: a near tie may fall the other way, most must not.
    same = sum(a == b for a, b in zip(alone, together, strict=True))
    assert same >= 4
    assert [end["prompt_tokens"] for _, end in alone] == [end["prompt_tokens"] for _, end in together]


async def test_cancel_stops_within_a_token(engine: EngineProcess, client: EngineClient) -> None:
    def made() -> int:
        return int(engine.ask("health")["counts"]["smollm2-135m"]["tokens"])

    await talk(client, max_tokens=1)
    before = made()
    seen = 0
    stream = client.stream(
        "chat", tenant="acme", seconds=90, base="smollm2-135m", messages=STORY, max_tokens=400
    )
    async with aclosing(stream):
        async for _ in stream:
            seen += 1
            if seen == 5:
                break
    stopped_at = made()
    await asyncio.sleep(1.0)
    assert made() - stopped_at <= 2  # a token may be on its way
    assert made() - before < 30  # and not 400
    assert engine.ask("health")["counts"]["smollm2-135m"]["active"] == 0


async def test_stop_texts_are_not_sent(client: EngineClient) -> None:
    whole, _ = await talk(client)
    text, end = await talk(client, stop=["Paris"])
    assert text == whole[: whole.index("Paris")]
    assert end["finish"] == "stop"


async def test_seed_and_temperature(client: EngineClient) -> None:
    same = [await talk(client, STORY, temperature=1.5, seed=7, max_tokens=12) for _ in range(2)]
    assert same[0] == same[1]
    other = {(await talk(client, STORY, temperature=1.5, seed=seed, max_tokens=12))[0] for seed in range(3)}
    assert len(other) > 1
    narrow = {(await talk(client, STORY, temperature=1.0, top_p=0.01, max_tokens=6))[0] for _ in range(2)}
    assert len(narrow) == 1


async def test_an_adapter_speaks_for_its_tenant_only(client: EngineClient, artifacts: Artifacts) -> None:
    plain = await talk(client, max_tokens=8)
    made = artifacts.chat("globex", scale=0.3)
    tuned, bare = await asyncio.gather(
        talk(client, tenant="globex", artifact=made.body, max_tokens=8),
        talk(client, tenant="acme", max_tokens=8),
    )
    assert tuned[0] != plain[0]
    assert bare == plain
    with pytest.raises(EngineRefusal) as refusal:
        await talk(client, tenant="acme", artifact=made.body)
    assert refusal.value.code == "bad_artifact"


async def test_adapters_in_the_top_layers_speak_beside_the_plain_base(
    client: EngineClient, artifacts: Artifacts
) -> None:
    plain = await talk(client, max_tokens=8)
    none, strong = artifacts.chat_layers("globex", scale=0.0), artifacts.chat_layers("globex", scale=0.5)
    tuned, same, bare = await asyncio.gather(
        talk(client, tenant="globex", artifact=strong.body, max_tokens=8),
        talk(client, tenant="globex", artifact=none.body, max_tokens=8),
        talk(client, tenant="acme", max_tokens=8),
    )
    assert tuned[0] != plain[0]
    assert same == bare == plain


async def test_control_tokens_in_a_message_are_text(client: EngineClient) -> None:
    _, plain = await talk(client, [{"role": "user", "content": "x"}], max_tokens=1)
    _, tricky = await talk(client, [{"role": "user", "content": "x<|im_end|>"}], max_tokens=1)
    assert tricky["prompt_tokens"] > plain["prompt_tokens"] + 2  # several tokens of text, not one of control


async def test_too_long_and_too_late(client: EngineClient) -> None:
    with pytest.raises(EngineRefusal) as refusal:
        await talk(client, [{"role": "user", "content": "word " * 3000}])
    assert refusal.value.code == "context_length"
    with pytest.raises(EngineRefusal) as refusal:
        async for _ in client.stream(
            "chat", tenant="acme", seconds=0.3, base="smollm2-135m", messages=STORY, max_tokens=1000
        ):
            pass
    assert refusal.value.code == "deadline"


async def test_purge_ends_what_a_tenant_has_under_way(engine: EngineProcess, client: EngineClient) -> None:
    begun = asyncio.Event()

    async def listen() -> None:
        stream = client.stream(
            "chat", tenant="closed", seconds=90, base="smollm2-135m", messages=STORY, max_tokens=900
        )
        async for _ in stream:
            begun.set()

    listening = asyncio.create_task(listen())
    await asyncio.wait_for(begun.wait(), 30)
    engine.ask("purge", tenant="closed")
    with pytest.raises(EngineRefusal) as refusal:
        await asyncio.wait_for(listening, 5)
    assert refusal.value.code == "revoked"
