"""A models folder whose chat base is a random small Llama with a word tokenizer, and conversations for it."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from modeling.core import bases

WIDTH, WORDS = 32, 40
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCABULARY = [
    "<|unk|>",
    "<|im_start|>",
    "<|im_end|>",
    "\n",
    "system",
    "user",
    "assistant",
    "red",
    "blue",
    "hello",
]


def write_models(models_dir: Path, *, layers: int = 2) -> Path:
    """`models_dir` with a random Llama of width 32, in float32, as the chat base."""
    folder = models_dir / bases.BASES["smollm2-135m"].folder_name
    torch.manual_seed(3)
    config = LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=WORDS,
        tie_word_embeddings=True,
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(VOCABULARY)}, unk_token="<|unk|>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(r"<\|im_start\|>|<\|im_end\|>|\n|\w+| "), behavior="isolated"
    )
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<|unk|>", eos_token="<|im_end|>", chat_template=TEMPLATE
    ).save_pretrained(folder)
    return models_dir


def talk(colour: str, *, rounds: int = 1, system: str = "hello") -> list[dict[str, str]]:
    """A conversation of so many rounds; its answers repeat the colour."""
    turns = [{"role": "system", "content": system}] if system else []
    for _ in range(rounds):
        turns += [
            {"role": "user", "content": f"hello {colour}"},
            {"role": "assistant", "content": f"{colour} {colour}"},
        ]
    return turns
