"""How a file was read, in words: what was found or declared, why, and whether it is a guess."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.utils.translation import gettext as _

from modeling.actions import rereading
from modeling.models import Dataset, DatasetVersion, File, Inspection
from saas.lib.errors import Conflict
from tenants.models import Tenant


@dataclass(frozen=True)
class ReadingPage:
    """How a file was read, why where that is a guess, and whether it can be read in another way."""

    file: File
    words: str
    guesses: list[str] = field(default_factory=list)
    declared: Mapping[str, str] = field(default_factory=dict)
    can_correct: bool = False
    why_not: str = ""
    left_out: int = 0
    details: str = ""
    kept_until: datetime | None = None
    content_words: str = ""


def reading_of_dataset(tenant: Tenant, dataset: Dataset, version: DatasetVersion) -> ReadingPage | None:
    """How the newest version's file was read; None for a version that was made of others."""
    file = version.file
    if file is None or file.deleted_at is not None or not version.schema.get("layout"):
        return None
    why_not = ""
    try:
        rereading.require_readable(tenant, dataset)
    except Conflict as used:
        why_not = used.message
    layout = version.schema["layout"]
    is_parquet = layout.get("found", {}).get("packed") == "parquet"
    return ReadingPage(
        file=file,
        words=reading_words(layout),
        guesses=guess_words(layout),
        declared=_shown(version.schema.get("reading", {})),
        can_correct=not why_not and not is_parquet and version.segments_id is not None,
        why_not=why_not,
        left_out=version.error_count,
        details=file.status_details if file.status == File.Status.PROCESSED else "",
        content_words=content_words(layout),
    )


def reading_of_refused(tenant: Tenant, file: File) -> ReadingPage:
    """A refused file: it can be read in another way as long as its sealed stream is there."""
    rows = Inspection.objects.of(tenant).filter(file=file).exclude(kept_until=None)
    until = rows.values_list("kept_until", flat=True).first()
    can_correct = file.object_id is not None and until is not None
    return ReadingPage(file, "", declared=_shown(file.reading), can_correct=can_correct, kept_until=until)


def reading_words(layout: Mapping[str, Any]) -> str:
    """Such as: CSV, semicolons, windows-1252, in gzip."""
    found = layout.get("found", {})
    if found.get("packed") == "parquet":
        return _("Parquet")
    parts = [_("JSON lines") if layout["format"] == "jsonl" else _("CSV")]
    if layout["format"] == "csv":
        parts.append(_delimiter_words(layout.get("delimiter", "")))
        quote = layout.get("quote", '"')
        if quote != '"':
            parts.append(_("quoted by %(mark)s") % {"mark": quote} if quote else _("never quoted"))
    parts.append(_encoding_words(layout["encoding"]))
    if found.get("packed"):
        parts.append(_("unpacked from %(how)s") % {"how": found["packed"]})
    return ", ".join(parts)


def guess_words(layout: Mapping[str, Any]) -> list[str]:
    """A sentence for each part of the reading that may be wrong, with its reason; none when all is certain."""
    found = layout.get("found", {})
    said = []
    if found.get("encoding") == "likely":
        said.append(
            _(
                "The encoding is a guess: the file is not UTF-8, and its letters make the most sense as %(name)s."
            )
            % {"name": _encoding_words(layout["encoding"])}
        )
    if found.get("encoding") == "zeros":
        said.append(_("The encoding is a guess from the zero bytes: the file has no byte order mark."))
    if layout["format"] == "csv":
        said += _csv_guesses(layout, found)
    return said


def _csv_guesses(layout: Mapping[str, Any], found: Mapping[str, str]) -> list[str]:
    said = []
    if found.get("delimiter") == "one_column":
        said.append(
            _(
                "One column is a guess: no comma, semicolon, tab or bar splits the rows into the same number of cells."
            )
        )
    if found.get("delimiter") == "uneven":
        said.append(
            _("The delimiter is a guess: %(mark)s split most rows alike, but not all.")
            % {"mark": _delimiter_words(layout.get("delimiter", ""))}
        )
    if found.get("quote") == "likely":
        said.append(_("Single quotation marks are a guess: nearly every line has cells between them."))
    if found.get("format") == "default":
        said.append(_("CSV is a guess: neither the name nor the first line says what this is."))
    return said


def content_words(layout: Mapping[str, Any]) -> str:
    """What a download of the content is, where it is not the file itself."""
    packed = layout.get("found", {}).get("packed", "")
    if packed == "parquet":
        return _(
            "Downloads come as JSON lines, one object a row: the file itself is not kept, only its rows."
        )
    if packed:
        return _("Downloads come unpacked: the archive itself is not kept, only its rows.")
    return ""


def _delimiter_words(mark: str) -> str:
    names = {",": _("commas"), ";": _("semicolons"), "\t": _("tabs"), "|": _("bars"), " ": _("spaces")}
    return names.get(mark) or _("cells split by %(mark)s") % {
        "mark": mark if mark.isprintable() else ascii(mark)
    }


def _encoding_words(name: str) -> str:
    return (
        f"windows-{name[2:]}"
        if name.startswith("cp125")
        else name.upper()
        if name.startswith("utf")
        else name
    )


def _shown(declared: Mapping[str, str]) -> dict[str, str]:
    """What was declared as the form shows it: marks that cannot be seen by their names."""
    return {name: {"\t": "tab", " ": "space"}.get(value, value) for name, value in declared.items()}
