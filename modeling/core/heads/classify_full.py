"""Text classification by private full fine-tuning: every layer of the encoder and the head, by ghost clipping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from modeling.core import bases
from modeling.core.heads import classify_steps
from modeling.core.types import Checkpoint, Event, Plan, Recipe, Shape, TrainingData

CONSTANTS = classify_steps.Constants(
    method="full",
    batch=1024,
    steps=24,
    head_share=0.8,
    encoder_rate=2e-5,  # 5e-5 lost .001 over the run at epsilon 8 on public data
    head_rate=0.005,
    rank=0,
    clip=1.0,
    checkpoint_steps=4,  # values, both moments and the average are 170 MB: not after every step
    open_batch=256,
    open_epochs=3,
    open_encoder_rate=5e-5,
)
NOTE = (
    "All layers of the encoder are trained, its tables of word and position vectors are not: most words do not occur "
    "in the data, and noise on their vectors would only harm. The model is 43 MB instead of under one."
)


# ICD-10-CM chapters: without privacy, n = 5,000: .908 against .872 of the head; at epsilon 8, n = 17,285: .891 to .893
# over the steps against .892 of the head's start.
PRIVATE_NOTE = (
    "Privacy noise grows with the number of parameters: with 17,000 people and epsilon 8 this was no better than the "
    "private head on public data, while without privacy it was. Choose it for many more people, or try the head first."
)


class TextFullHead:
    """All layers and the softmax head in one private optimizer; the clipping holds for all rows of a unit together.

    As with LoRA the head starts from the full-batch recipe on frozen embeddings. Noise grows with the number of
    parameters, so this asks for many people or a large epsilon, and for a GPU when there are many texts.
    """

    task = "classification"
    method = "full"

    def plan(self, recipe: Recipe, shape: Shape, device: str) -> Plan:
        """Two mechanisms that meet epsilon together, by PLD; raises CannotTrain when too little can be learnt."""
        found = classify_steps.make_plan(CONSTANTS, recipe, shape, device)
        notes = (NOTE,) if recipe.epsilon is None else (NOTE, PRIVATE_NOTE)
        return replace(found, notes=(*found.notes, *notes))

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
