"""Answers with a downloaded chat model: the base model with its adapter, through transformers and PEFT alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from modeling.core.exported.reading import HERE, base_of

_PUBLIC_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"


def load_chat(folder: Path = HERE, base: str = "") -> tuple[Any, Any]:
    """(tokenizer, model), float32; `base` is a folder or a name, if not the usual one."""
    tokenizer = AutoTokenizer.from_pretrained(str(folder / "tokenizer"))
    if (folder / "model").is_dir():  # the whole model was fine-tuned
        whole = AutoModelForCausalLM.from_pretrained(str(folder / "model"), dtype=torch.float32)
        return tokenizer, whole.eval()
    from peft import PeftModel

    name = base or base_of(folder, _PUBLIC_NAME)
    model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    return tokenizer, PeftModel.from_pretrained(model, str(folder / "adapter")).eval()


def answer(question: str, folder: Path = HERE, base: str = "", *, max_new_tokens: int = 64) -> str:
    """The model's answer to one message, the most likely word at each place."""
    tokenizer, model = load_chat(folder, base)
    turns = [{"role": "user", "content": question}]
    given = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        made = model.generate(**given, max_new_tokens=max_new_tokens, do_sample=False)
    return str(tokenizer.decode(made[0, given["input_ids"].shape[1] :], skip_special_tokens=True))


def main() -> int:
    """python predict.py "a question" """
    print(answer(" ".join(sys.argv[1:])))
    return 0
