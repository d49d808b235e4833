"""Northgate Clinic's demo file: ICD-10-CM descriptions and the chapter each belongs to (a US government work)."""

from __future__ import annotations

import csv
import hashlib
import io
import re

from modeling.packs.base import Sample

ROWS_PER_CHAPTER = 1_500
SMALLEST_CHAPTER = 100  # the chapter of special purposes has three codes: too few to be a class
SEED = b"northgate-clinic/1"
_CODE_RANGE = re.compile(r"\s*\([A-Z0-9]+-[A-Z0-9]+\)$")


def _order(code: str) -> bytes:
    """A seeded order that no library version can change."""
    return hashlib.sha256(SEED + b"|" + code.encode()).digest()


def _descriptions_by_chapter() -> dict[str, dict[str, str]]:
    """chapter name -> {description of a leaf code: the code}; blocks (headings without codes) are no leaves."""
    from simple_icd_10_cm import simple_icd_10_cm as source  # parsing its XML takes 2 s: only when asked

    chapters: dict[str, dict[str, str]] = {}
    texts: dict[str, str] = {}
    for code in source.get_all_codes():
        if source.is_chapter(code):
            texts = chapters.setdefault(_CODE_RANGE.sub("", source.get_description(code)), {})
        elif source.is_category_or_subcategory(code) and source.is_leaf(code):
            texts.setdefault(source.get_description(code), code)
    return chapters


def clinic_rows() -> list[tuple[str, str]]:
    """(description, chapter) in a fixed order: unique full descriptions of leaf codes, at most 1,500 a chapter."""
    rows: list[tuple[bytes, str, str]] = []
    for name, texts in _descriptions_by_chapter().items():
        if len(texts) < SMALLEST_CHAPTER:
            continue
        rows.extend(sorted((_order(code), text, name) for text, code in texts.items())[:ROWS_PER_CHAPTER])
    return [(text, name) for _, text, name in sorted(rows)]


def clinic_csv() -> bytes:
    """The demo file as UTF-8 CSV with the columns description, chapter."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(("description", "chapter"))
    writer.writerows(clinic_rows())
    return sink.getvalue().encode()


CLINIC_CODES = Sample(
    slug="clinic-icd10",
    title="Diagnosis descriptions by ICD-10-CM chapter",
    filename="northgate-clinic-icd10.csv",
    purpose="fine-tune",
    format="csv",
    task="classification",
    columns={"text": "description", "label": "chapter"},
    unit="",
    rows=21_607,
    sha256="1b075f88b38d52dedc26c71b279d0db691a824b20899654bc83f23e5f2c9d26e",
    is_synthetic=False,
    licence="ICD-10-CM, a work of the US government (public domain); extracted with simple-icd-10-cm 1.5.0 (MIT).",
    about="Public code descriptions, no patient's record: each row stands for one person in the demo.",
    build=clinic_csv,
)
