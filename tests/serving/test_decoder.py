"""The decoder computes what transformers computes, also after conversations moved between slots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from modeling.serving.decoder import Llama

TOKENS = [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8], [1, 6, 1, 8, 0, 3, 3, 9, 8, 8]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    model = LlamaForCausalLM(config).eval()
    folder = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(folder)
    return folder, model


def expected(model: Any, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        scores: torch.Tensor = model(torch.tensor([tokens])).logits[0, -1]
    return scores


def read(folder: Path, slots: int = 4) -> Llama:
    return Llama(folder, slots=slots, context=64, dtype=torch.float32)


def test_it_works(tiny: tuple[Path, Any]) -> None:
    folder, model = tiny
    mine = read(folder)
    hidden = mine.prefill(0, TOKENS[0], 0)
    assert torch.allclose(mine.logits(hidden, None, [0])[0], expected(model, TOKENS[0]), atol=1e-5)


def test_a_prompt_in_pieces_is_the_prompt(tiny: tuple[Path, Any]) -> None:
    folder, model = tiny
    mine = read(folder)
    mine.prefill(1, TOKENS[2][:3], 0)
    mine.prefill(1, TOKENS[2][3:9], 3)
    hidden = mine.prefill(1, TOKENS[2][9:], 9)
    assert torch.allclose(mine.logits(hidden, None, [0])[0], expected(model, TOKENS[2]), atol=1e-5)


def test_steps_of_conversations_of_different_length(tiny: tuple[Path, Any]) -> None:
    folder, model = tiny
    mine = read(folder)
    texts = [list(tokens) for tokens in TOKENS]
    for slot, tokens in enumerate(texts):
        mine.prefill(slot, tokens, 0)
    for turn in range(4):
        news = [(7 * turn + slot) % 50 for slot in range(3)]
        scores = mine.logits(mine.step(news, [len(tokens) for tokens in texts]), None, [0] * 3)
        for slot, tokens in enumerate(texts):
            tokens.append(news[slot])
            assert torch.allclose(scores[slot], expected(model, tokens), atol=1e-5)


def test_a_moved_conversation_goes_on_and_leaves_nothing(tiny: tuple[Path, Any]) -> None:
    folder, model = tiny
    mine = read(folder)
    mine.prefill(0, TOKENS[2], 0)
    mine.prefill(3, TOKENS[1], 0)
    assert mine._keys[:, 3].any()  # the control
    mine.move(3, 0, len(TOKENS[2]))  # over a longer one that ended
    assert not mine._keys[:, 3].any()
    assert not mine._values[:, 3].any()
    assert not mine._keys[:, 0, :, len(TOKENS[1]) :].any()
    scores = mine.logits(mine.step([11], [len(TOKENS[1])]), None, [0])
    assert torch.allclose(scores[0], expected(model, [*TOKENS[1], 11]), atol=1e-5)
    mine.forget(0, len(TOKENS[1]) + 1)
    assert not mine._keys.any()
    assert not mine._values.any()
