"""What a quality report says, in sentences: what was found, why it matters, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

SENTENCES = {
    "shared_people": gettext_lazy(
        "%(n)s of the %(of)s people in the other dataset are in this one, too. What a model scores on "
        "people it has seen says little: keep them in one of the two."
    ),
    "shared_rows": gettext_lazy(
        "%(n)s of the %(of)s rows of the other dataset stand in this one, too. Remove them from one of "
        "the two before you compare models on it."
    ),
    "nothing_shared": gettext_lazy(
        "This dataset and the one it was compared with share neither people nor rows."
    ),
    "column_is_label": gettext_lazy(
        "The column “%(column)s” repeats the label. A model would copy it, and fail where it is not "
        "known yet. Leave it out."
    ),
    "column_decides": gettext_lazy(
        "The column “%(column)s” gives the label away in %(share)s of the rows. If it is only known "
        "after the label is, leave it out."
    ),
    "label_in_text": gettext_lazy(
        "In %(share)s of the rows the text contains the words of its own label (%(chance)s by chance). "
        "If they were written after the decision, take them out of the text."
    ),
    "class_in_text": gettext_lazy(
        "%(share)s of the texts labelled “%(label)s” contain the label’s own words. If they were written "
        "after the decision, take them out of the text."
    ),
    "held_out_copies": gettext_lazy(
        "%(share)s of the rows held out for measuring stand among the training rows as well, the same or "
        "nearly so: accuracy will look better than it is. Remove the copies. Where several rows "
        "are one person’s, name the column that says so: then they stay on one side."
    ),
    "contradictions": gettext_lazy(
        "%(n)s rows have a text that stands elsewhere with another label. Decide on one label, or leave "
        "these rows out."
    ),
    "near_copies": gettext_lazy(
        "%(n)s rows (%(share)s) are nearly the same as another one, as templates or forwarded notes are. "
        "They teach little twice: keep one of each."
    ),
    "copies": gettext_lazy(
        "%(n)s rows (%(share)s) repeat an earlier row in every column. Remove them, unless the same "
        "really happened twice."
    ),
    "missing": gettext_lazy(
        "The column “%(column)s” is empty in %(share)s of the rows. Fill it, or leave the column out."
    ),
    "unnamed": gettext_lazy(
        "In %(n)s rows the column “%(column)s” is empty. All of them count as the rows of one person, who "
        "cannot be erased by name: fill it, or leave those rows out."
    ),
    "placeholders": gettext_lazy(
        "The column “%(column)s” holds words such as n/a or unknown in %(n)s rows. Empty those cells, so "
        "that they count as missing."
    ),
    "outside": gettext_lazy(
        "%(share)s of the cells of “%(column)s” lie outside its declared bounds or categories. Numbers "
        "are put on the bound, categories count as missing: declare what you know more widely."
    ),
    "one_class": gettext_lazy(
        "All rows have the same label: there is nothing to learn. Add rows with others."
    ),
    "small_classes": gettext_lazy(
        "%(n)s classes have fewer than %(rows)s rows. Under privacy a class that small is hardly learnt: "
        "bring more, or merge it with another."
    ),
    "lopsided": gettext_lazy(
        "One class has %(share)s of all rows. A model that always says it would score as much: look at "
        "the other classes’ own accuracy."
    ),
    "empty_texts": gettext_lazy("%(n)s texts have no words. Leave those rows out."),
    "too_long": gettext_lazy(
        "%(share)s of the texts are longer than the encoder reads (%(tokens)s tokens). What decides "
        "should stand at the beginning, or split long texts into rows of the same person."
    ),
    "too_few_people": gettext_lazy(
        "%(n)s people are too few to hide one among them: private training starts at about %(needed)s, "
        "and useful models need hundreds."
    ),
    "few_people": gettext_lazy(
        "%(n)s people: a private model will be rough. With %(needed)s or more, epsilon 8 costs little "
        "accuracy in most tasks."
    ),
    "unlocks_canaries": gettext_lazy(
        "With %(needed)s people (there are %(n)s) a run can also plant canaries: made-up people who show "
        "how well anyone can be told from outside."
    ),
    "one_has_many": gettext_lazy(
        "One person has %(n)s rows, %(share)s of all. Each person weighs the same in training however "
        "many rows they have: it is no mistake, but most of those rows add nothing."
    ),
    "all_good": gettext_lazy("Nothing stands in the way of a good model."),
}
TITLES = {
    "shared_people": gettext_lazy("The same people in both"),
    "shared_rows": gettext_lazy("The same rows in both"),
    "nothing_shared": gettext_lazy("Nothing shared"),
    "column_is_label": gettext_lazy("A column is the label"),
    "column_decides": gettext_lazy("A column gives the label away"),
    "label_in_text": gettext_lazy("The label stands in the text"),
    "class_in_text": gettext_lazy("The label stands in the text"),
    "held_out_copies": gettext_lazy("Held-out rows are in the training rows"),
    "contradictions": gettext_lazy("Same text, other label"),
    "near_copies": gettext_lazy("Near-duplicates"),
    "copies": gettext_lazy("Duplicates"),
    "missing": gettext_lazy("Missing values"),
    "unnamed": gettext_lazy("Rows that name nobody"),
    "placeholders": gettext_lazy("Words for missing"),
    "outside": gettext_lazy("Outside of what was declared"),
    "one_class": gettext_lazy("One class only"),
    "small_classes": gettext_lazy("Small classes"),
    "lopsided": gettext_lazy("One class outweighs all others"),
    "empty_texts": gettext_lazy("Empty texts"),
    "too_long": gettext_lazy("Long texts"),
    "too_few_people": gettext_lazy("Too few people"),
    "few_people": gettext_lazy("Few people"),
    "unlocks_canaries": gettext_lazy("What more people unlock"),
    "one_has_many": gettext_lazy("One person has many rows"),
    "all_good": gettext_lazy("Good to train on"),
}
_SHARES = ("share", "chance")


def sentence(code: str, values: Mapping[str, Any]) -> str:
    """The sentence of a finding with its numbers; the code itself where a later version's is not known here."""
    if code not in SENTENCES:
        return code
    shown = {key: _share(value) if key in _SHARES else _count(value) for key, value in values.items()}
    return str(SENTENCES[code]) % shown


def title(code: str) -> str:
    """A finding in three words."""
    return str(TITLES.get(code, code))


def _share(value: float) -> str:
    if 0 < value < 0.001:
        return _("less than 0.1 %")
    return f"{100 * value:.1f} %" if value < 0.1 else f"{100 * value:.0f} %"


def _count(value: Any) -> Any:
    return f"{value:,}" if isinstance(value, int) else value
