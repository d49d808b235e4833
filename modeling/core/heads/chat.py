"""Chat in three ways: an adapter behind the last layer, in the top layers, or LoRA through the whole model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from modeling.core import chat_plans
from modeling.core.types import Checkpoint, Event, Plan, Recipe, Shape, TrainingData


class FinalHiddenHead:
    """Low-rank adapter with bias behind the last layer; nothing else of the model changes. The choice on a CPU."""

    task = "chat"
    method = "final_hidden"

    def plan(self, recipe: Recipe, shape: Shape, device: str) -> Plan:
        """Fixed steps over a capped number of people; raises CannotTrain for too few."""
        return chat_plans.plan_of(self.method, recipe, shape, device)

    def train(
        self,
        plan: Plan,
        data: TrainingData,
        *,
        models_dir: Path,
        resume: Checkpoint | None,
        spent: Mapping[str, int],
    ) -> Iterator[Event]:
        """Cache once (spends nothing), then charge and step one by one; held-out before and after."""
        from modeling.core import chat_tuners  # here, so that planning a job does not load torch

        return chat_tuners.train(plan, data, models_dir=models_dir, resume=resume, spent=spent)


class TopLayersHead(FinalHiddenHead):
    """LoRA in the top four layers from the answer's opening on; what lies below and before is cached."""

    method = "top_layers"


class LoraChatHead(FinalHiddenHead):
    """LoRA on every linear layer under Opacus' hooks: for a GPU."""

    method = "lora"

    def train(
        self,
        plan: Plan,
        data: TrainingData,
        *,
        models_dir: Path,
        resume: Checkpoint | None,
        spent: Mapping[str, int],
    ) -> Iterator[Event]:
        """Tokenise, then charge and step one by one; held-out before and after."""
        from modeling.core import chat_lora

        return chat_lora.train(plan, data, models_dir=models_dir, resume=resume, spent=spent)


class AutoChatHead(FinalHiddenHead):
    """The default: LoRA where the worker has a GPU, else the adapter behind the last layer."""

    method = "auto"

    def plan(self, recipe: Recipe, shape: Shape, device: str) -> Plan:
        """The plan of the method that fits the device; it names that method, so this class never trains."""
        head: FinalHiddenHead = LoraChatHead() if device.startswith("cuda") else FinalHiddenHead()
        return head.plan(recipe, shape, device)
