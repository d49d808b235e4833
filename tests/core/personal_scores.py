"""Recall and precision of what is found, by kind, on sentences whose personal data is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from modeling.core.personal_data import ALL_KINDS, Found, find
from tests.core.personal_sentences import Sentence

Finder = Callable[[str], list[Found]]


@dataclass
class Score:
    """Of one kind: planted, covered whole by whatever was found (masking hides it), named right; and what was found."""

    planted: int = 0
    covered: int = 0
    named: int = 0
    found: int = 0
    right: int = 0
    missed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def recall(self) -> float:
        """The share of planted places that no masked text shows any more."""
        return self.covered / self.planted if self.planted else 1.0

    @property
    def precision(self) -> float:
        """The share of what was found that lies in planted data, of the same kind or another."""
        return self.right / self.found if self.found else 1.0


def everything(text: str) -> list[Found]:
    """All kinds, names and dates with them."""
    return find(text, kinds=ALL_KINDS)


def scored(
    sentences: Iterable[Sentence], clean: Collection[str] = (), finder: Finder = everything
) -> dict[str, Score]:
    """The scores by kind; `clean` are texts in which every find is a mistake."""
    scores = {kind: Score() for kind in ALL_KINDS}
    for sentence in sentences:
        found = finder(sentence.text)
        hidden = {at for place in found for at in range(place.start, place.end)}
        for kind, start, end in sentence.places:
            score = scores[kind]
            score.planted += 1
            wanted = {at for at in range(start, end) if sentence.text[at].isalnum()}
            if wanted <= hidden:
                score.covered += 1
            else:
                score.missed.append(sentence.text)
            score.named += any(one.kind == kind and one.start < end and one.end > start for one in found)
        for place in found:
            touched = Counter(
                kind for kind, start, end in sentence.places if place.start < end and place.end > start
            )
            scores[place.kind].found += 1
            if touched:
                scores[place.kind].right += 1
            else:
                scores[place.kind].wrong.append(f"{sentence.text[place.start : place.end]} | {sentence.text}")
    for text in clean:
        for place in finder(text):
            scores[place.kind].found += 1
            scores[place.kind].wrong.append(f"{text[place.start : place.end]} | {text}")
    return scores
