"""Text classification by private LoRA: adapters and head trained under Opacus with Poisson-sampled units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from modeling.core import bases
from modeling.core.heads import classify_steps
from modeling.core.types import Checkpoint, Event, Plan, Recipe, Shape, TrainingData

CONSTANTS = classify_steps.Constants(
    method="lora",
    batch=768,
    steps=24,
    head_share=0.7,  # the head's start carries most of the accuracy
    encoder_rate=5e-4,
    head_rate=0.005,
    rank=8,
    clip=1.0,
    checkpoint_steps=1,
    open_batch=256,
    open_epochs=3,
    open_encoder_rate=5e-4,
)


class TextLoraHead:
    """Rank-8 adapters on the encoder's queries and values with the softmax head, in one private optimizer.

    The head starts from the full-batch recipe on frozen embeddings, which takes most of the budget and seconds;
    the Poisson-subsampled steps then train adapters and head together.
    """

    task = "classification"
    method = "lora"

    def plan(self, recipe: Recipe, shape: Shape, device: str) -> Plan:
        """Two mechanisms that meet epsilon together, by PLD; raises CannotTrain when too little can be learnt."""
        return classify_steps.make_plan(CONSTANTS, recipe, shape, device)

    def train(
        self,
        plan: Plan,
        data: TrainingData,
        *,
        models_dir: Path,
        resume: Checkpoint | None,
        spent: Mapping[str, int],
    ) -> Iterator[Event]:
        """Tokenise (spends nothing), then charge, step and report one step at a time."""
        folder = bases.path(models_dir, plan.recipe.base)
        yield from classify_steps.fit(plan, data, folder, resume=resume, spent=spent)
