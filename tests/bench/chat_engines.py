"""Chat per CPU second beside what a user would run instead: `python -m tests.bench.chat_engines`.

Prompts of 100 tokens and 32 new ones each, greedy, one thread, prefill included; rows take turns, and the best of the
rounds counts. Two models: a random Llama of 31 million parameters in float32, and smollm2-135m in the type the engine
serves it in. Every conversation is another tenant's, so that no opening is reused except in the rows that measure it.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.generation import ContinuousBatchingConfig, GenerationConfig
from transformers.utils import logging as transformers_logging

from modeling.core import bases
from modeling.serving.asks import Ask
from modeling.serving.chatml import ChatTokenizer
from modeling.serving.chatting import SLOTS, ChatRunner
from modeling.serving.decoder import Llama
from modeling.serving.prefixes import PREFIX_BYTES, Prefixes
from modeling.serving.store import ArtifactStore
from tests.serving.made import MODELS, Artifacts, Made

PROMPT, NEW, ROUNDS, CONTEXT = 100, 32, 3, 256
SYSTEM = "You answer the people of one clinic briefly, politely and in whole sentences. " * 4
Call = Callable[[], int]


class Prompts(ChatTokenizer):
    """Prompts of exactly PROMPT tokens that a model of any vocabulary can read; answers never end early."""

    def __init__(self, folder: Path, vocabulary: int) -> None:
        super().__init__(folder)
        self._vocabulary = vocabulary
        self.end = self.end % vocabulary
        self.ends = frozenset()

    def prompt(self, messages: Any) -> list[int]:
        """The usual prompt, its last message lengthened until it fits."""
        tokens = super().prompt(messages)
        opening = len(self._plain("assistant\n")) + 3
        filler = self._plain(" word") * (PROMPT - len(tokens))
        return [token % self._vocabulary for token in tokens[:-opening] + filler + tokens[-opening:]]


class Own:
    """The decoder as the engine runs it: queue, continuous batching, sampling; without socket and gateway."""

    def __init__(self, folder: Path, dtype: torch.dtype, *, prefix_bytes: int = 0) -> None:
        side = ThreadPoolExecutor(2, "side")
        model = Llama(folder, slots=SLOTS + 1, context=CONTEXT, dtype=dtype)
        self.tokenizer = Prompts(bases.path(MODELS, "smollm2-135m"), model.vocabulary)
        prefixes = Prefixes(max_bytes=prefix_bytes)
        self._loop = asyncio.new_event_loop()
        self.runner = ChatRunner(model, self.tokenizer, ArtifactStore(side), side, prefixes)
        self._running = self._loop.create_task(self.runner.run())

    def talk(self, clients: int, *, new: int = NEW, tenant: str = "", made: list[Made] | None = None) -> int:
        """Tokens made for conversations that begin together, each of a tenant of its own unless one is named."""
        return self._loop.run_until_complete(self._talk(clients, new, tenant, made or []))

    def close(self) -> None:
        """End the runner."""
        self._running.cancel()
        self._loop.run_until_complete(asyncio.gather(self._running, return_exceptions=True))
        self.runner.close()

    async def _talk(self, clients: int, new: int, tenant: str, made: list[Made]) -> int:
        deadline = self._loop.time() + 600
        asks = []
        for number in range(clients):
            body: dict[str, Any] = {"messages": messages(number), "temperature": 0.0, "max_tokens": new}
            owner = tenant or f"tenant-{number}"
            if made:
                body["artifact"], owner = made[number].body, made[number].tenant
            asks.append(Ask("chat", owner, body, deadline))
        ends = await asyncio.gather(*(self.runner.chat(ask, nobody) for ask in asks))
        return sum(int(end["completion_tokens"]) for end in ends)


def messages(number: int) -> list[dict[str, str]]:
    """One client's question after the common system text."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"What about {number}?"}]


async def nobody(part: dict[str, Any]) -> None:
    """Parts go nowhere: what is measured ends before the socket."""


class Hugging:
    """transformers on the same prompts: `generate` on one batch, and its continuous batching."""

    def __init__(self, folder: Path, dtype: torch.dtype, prompts: list[list[int]]) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()
        self._paged = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()
        self._prompts = prompts
        self._how = GenerationConfig(
            max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, eos_token_id=-1, pad_token_id=0
        )

    def generate(self) -> int:
        """One batch with HF generate."""
        given = torch.tensor(self._prompts)
        out = self._model.generate(given, attention_mask=torch.ones_like(given), generation_config=self._how)
        return int((out.shape[1] - given.shape[1]) * len(out))

    def continuous(self) -> int:
        """The same through `generate_batch`, sized for these requests."""
        sized = ContinuousBatchingConfig(
            page_size=32, num_blocks=128, max_batch_tokens=512, allow_block_sharing=False
        )
        found = self._paged.generate_batch(
            self._prompts, generation_config=self._how, continuous_batching_config=sized
        )
        return sum(len(one.generated_tokens) for one in found.values())


def tiny_llama(folder: Path) -> Path:
    """A random Llama of 31 million parameters, shaped like the real one."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16_384,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=6,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    print(f"random Llama of {sum(value.numel() for value in model.parameters()) / 1e6:.0f} M parameters")
    return folder


def adapters(folder: Path, count: int) -> list[Made]:
    """Adapters of rank 8 on q and v of every layer, each of a tenant of its own."""
    config = {"task": "chat", "base": "smollm2-135m", "method": "lora", "rank": 8, "alpha": 16.0}
    made = []
    for number in range(count):
        chance, tensors = np.random.default_rng(number), {}
        for layer in range(30):
            for part, out in (("q_proj", 576), ("v_proj", 192)):
                name = f"lora.model.layers.{layer}.self_attn.{part}"
                tensors[f"{name}.A"] = chance.normal(0, 0.02, (8, 576)).astype(np.float32)
                tensors[f"{name}.B"] = chance.normal(0, 0.02, (out, 8)).astype(np.float32)
        made.append(Artifacts(folder).seal(tensors, config, tenant=f"tuned-{number}"))
    return made


def measure(calls: dict[str, Call], rounds: int = ROUNDS) -> dict[str, float]:
    """Tokens per CPU second of each call: the best round, after one that warms up."""
    best: dict[str, float] = {}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            began = time.process_time()
            speed = call() / (time.process_time() - began)
            if turn:
                best[name] = max(best.get(name, 0.0), speed)
    return best


def decoding(own: Own, clients: int) -> float:
    """Tokens per CPU second once the prompts are read: what NEW tokens cost over one."""
    spent = []
    for _ in range(ROUNDS):
        for new in (1, NEW):
            began = time.process_time()
            own.talk(clients, new=new)
            spent.append(time.process_time() - began)
    return clients * (NEW - 1) / (min(spent[1::2]) - min(spent[::2]))


def row(name: str, found: float, asked: str, *, unit: str = "x") -> None:
    """One line of the result."""
    print(f"{name:62}{found:10.2f} {unit:8}{asked:>12}")


def speeds(title: str, found: dict[str, float]) -> None:
    """Tokens per CPU second by row."""
    print(f"\n{title}, tokens per CPU second")
    for name, speed in found.items():
        print(f"  {name:60}{speed:10.1f}")


def scaling(folder: Path) -> None:
    """The engine's own scaling on the 31 M Llama in float32."""
    own = Own(tiny_llama(folder), torch.float32)
    hugging = Hugging(folder, torch.float32, _prompts(own, 8))
    calls: dict[str, Call] = {f"own, {n} clients": lambda n=n: own.talk(n) for n in (1, 8, 32)}  # type: ignore[misc]
    calls |= {"HF generate, 8": hugging.generate, "HF continuous batching, 8": hugging.continuous}
    found = measure(calls)
    speeds("random Llama, float32", found)
    crowd(own, found, ">= 8")
    row(
        "8 clients / HF continuous batching",
        found["own, 8 clients"] / found["HF continuous batching, 8"],
        ">= 1.4",
    )
    own.close()


def crowd(own: Own, found: dict[str, float], asked: str = "-") -> None:
    """What company gains: a prompt is bound by arithmetic and gains nothing, a token is bound by reading weights."""
    row("32 clients / 1 client, once prompts are read", decoding(own, 32) / decoding(own, 1), asked)
    row("32 clients / 1 client, reading included", found["own, 32 clients"] / found["own, 1 clients"], "-")


def _prompts(own: Own, count: int) -> list[list[int]]:
    return [own.tokenizer.prompt(messages(number)) for number in range(count)]


def real(folder: Path) -> None:
    """smollm2-135m: beside transformers, and with adapters."""
    weights = bases.path(MODELS, "smollm2-135m")
    able = torch.cpu.get_capabilities()
    dtype = torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32
    own = Own(weights, dtype)
    tuned = adapters(folder, 8)
    hugging = Hugging(weights, dtype, _prompts(own, 8))
    calls: dict[str, Call] = {f"own, {n} clients": lambda n=n: own.talk(n) for n in (1, 8, 32)}  # type: ignore[misc]
    calls |= {
        "own, 8 clients with 8 adapters q,v": lambda: own.talk(8, made=tuned),
        "HF generate, 8": hugging.generate,
        "HF continuous batching, 8": hugging.continuous,
    }
    found = measure(calls)
    speeds(f"smollm2-135m, {dtype}", found)
    eight = found["own, 8 clients"]
    crowd(own, found)
    row("8 clients / HF generate", eight / found["HF generate, 8"], ">= 1.05")
    row("8 clients / HF continuous batching", eight / found["HF continuous batching, 8"], ">= 1.35")
    row("8 adapters q,v / none", found["own, 8 clients with 8 adapters q,v"] / eight, ">= .85")
    own.close()


def first_token() -> None:
    """CPU time to the first token, with the system text read anew and reused."""
    weights = bases.path(MODELS, "smollm2-135m")
    able = torch.cpu.get_capabilities()
    dtype = torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32
    own = Own(weights, dtype, prefix_bytes=PREFIX_BYTES)
    system = own.tokenizer.system_tokens(own.tokenizer.prompt(messages(0)))
    own.talk(1, new=1, tenant="regular")
    anew, reused = [], []
    for turn in range(12):
        for times, tenant in ((anew, f"new-{turn}"), (reused, "regular")):
            began = time.process_time()
            own.talk(1, new=1, tenant=tenant)
            times.append(1000 * (time.process_time() - began))
    hits = own.runner.prefixes.hits
    print(f"\nfirst token of a {PROMPT}-token prompt, {system} of them the system's ({hits} of 12 reused)")
    row("read anew", float(np.median(anew)), "<= 300", unit="CPU ms")
    row("the tenant's opening reused", float(np.median(reused)), "-", unit="CPU ms")
    row("saved", 1 - float(np.median(reused)) / float(np.median(anew)), "> 0", unit="of it")
    own.close()


def main() -> None:
    """All tables."""
    logging.disable(logging.WARNING)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    print(f"{'':62}{'found':>10} {'':8}{'asked':>12}")
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as name:
        scaling(Path(name))
        real(Path(name))
    first_token()


if __name__ == "__main__":
    main()
