"""A chat base that answers in a millisecond: a random Llama with the real tokenizer, and a runner around it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from modeling.core import bases
from modeling.serving.asks import Ask
from modeling.serving.chatml import ChatTokenizer
from modeling.serving.chatting import ChatRunner
from modeling.serving.decoder import Llama
from modeling.serving.prefixes import Prefixes
from modeling.serving.store import ArtifactStore
from tests.serving.made import MODELS

WIDTH = 32
CONTEXT = 512


def write_tiny(models_dir: Path, *, layers: int = 2) -> Path:
    """`models_dir` with the random Llama as the chat base; its words are noise and it hardly ever ends by itself."""
    folder = models_dir / bases.BASES["smollm2-135m"].folder_name
    torch.manual_seed(5)
    config = LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=49_152,
        tie_word_embeddings=True,
        max_position_embeddings=CONTEXT,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    shutil.copy(bases.path(MODELS, "smollm2-135m") / "tokenizer.json", folder)
    return models_dir


class Talks:
    """A runner on this event loop."""

    def __init__(self, folder: Path, *, slots: int = 4, prefixes: Prefixes | None = None) -> None:
        self._side = ThreadPoolExecutor(2)
        self.model = Llama(folder, slots=slots + 1, context=CONTEXT, dtype=torch.float32)
        store = ArtifactStore(self._side)
        self.runner = ChatRunner(self.model, ChatTokenizer(folder), store, self._side, prefixes)

    async def say(
        self, text: str, *, tenant: str = "acme", system: str = "", **more: Any
    ) -> tuple[str, list[float], dict[str, Any]]:
        """The answer's text, the logprob of each of its tokens, and the end."""
        messages = [{"role": "user", "content": text}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        body = {"messages": messages, "temperature": 0.0, "max_tokens": 8, "logprobs": True} | more
        parts: list[dict[str, Any]] = []

        async def send(part: dict[str, Any]) -> None:
            parts.append(part)

        ask = Ask("chat", tenant, body, asyncio.get_running_loop().time() + 60)
        end = await self.runner.chat(ask, send)
        values = [one["logprob"] for part in parts for one in part["logprobs"]]
        return "".join(part["text"] for part in parts), values, end

    async def idle(self) -> None:
        """Return once no conversation holds a slot, which a step sees."""
        for _ in range(1000):
            if not self.runner.active:
                return
            await asyncio.sleep(0.005)
        raise AssertionError("a conversation goes on")


@asynccontextmanager
async def talks(
    models_dir: Path, *, slots: int = 4, prefixes: Prefixes | None = None
) -> AsyncIterator[Talks]:
    """A running runner around the block."""
    made = Talks(bases.path(models_dir, "smollm2-135m"), slots=slots, prefixes=prefixes)
    running = asyncio.create_task(made.runner.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        made.runner.close()
