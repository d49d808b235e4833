"""What an uploader declares about how a file is to be read: checked, and named as Python and the csv module do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from django.utils.translation import gettext as _

from modeling.core.tables import FORMATS, NO_QUOTES, Reading
from modeling.core.text_encodings import codec_name
from modeling.models import File
from saas.lib.errors import Refusal

FIELDS: Final = ("encoding", "delimiter", "quote", "format")
_MARKS: Final = {
    "comma": ",",
    "semicolon": ";",
    "tab": "\t",
    "\\t": "\t",
    "bar": "|",
    "pipe": "|",
    "space": " ",
    "colon": ":",
    "double": '"',
    "single": "'",
}


def checked(declared: Mapping[str, str]) -> dict[str, str]:
    """What was declared, without the fields to be guessed; raises Refusal with the field's name."""
    said = {name: str(declared.get(name) or "") for name in FIELDS}
    try:
        encoding = codec_name(said["encoding"].strip())
    except LookupError:
        raise Refusal(
            _("No text encoding has this name. Write one such as utf-8, cp1252 or shift_jis."),
            param="encoding",
        ) from None
    if said["format"] not in ("", *FORMATS):
        raise Refusal(_("format is one of %(all)s.") % {"all": ", ".join(FORMATS)}, param="format")
    delimiter, quote = _mark(said["delimiter"], "delimiter"), said["quote"]
    if quote != NO_QUOTES:
        quote = _mark(quote, "quote")
    if delimiter and delimiter == quote:
        raise Refusal(_("delimiter and quote are different characters."), param="quote")
    found = {"encoding": encoding, "delimiter": delimiter, "quote": quote, "format": said["format"]}
    return {name: value for name, value in found.items() if value}


def _mark(value: str, field: str) -> str:
    """One character, given itself or by its name."""
    mark = _MARKS.get(value.strip().lower(), value)
    if len(mark) > 1 or mark in ("\r", "\n", "\0"):
        raise Refusal(_("%(field)s is one character.") % {"field": field}, param=field)
    return mark


def reading_said(file: File) -> dict[str, str]:
    """What was declared with a file; `encoding` alone with those from before `reading` was kept."""
    return dict(file.reading) or ({"encoding": file.encoding} if file.encoding else {})


def reading_of(file: File) -> Reading:
    """How a file is to be read: its name and what was declared with it."""
    said = reading_said(file)
    encoding, delimiter, quote, form = (said.get(name, "") for name in FIELDS)
    return Reading(file.name, encoding, delimiter, quote, form)
