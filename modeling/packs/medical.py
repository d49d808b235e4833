"""The medical pack: clinical text, patients as the unit of privacy."""

from __future__ import annotations

from modeling.packs import tables
from modeling.packs.base import Pack
from modeling.packs.samples.clinic import CLINIC_CODES

MEDICAL = Pack(
    slug="medical",
    name="Medical",
    about="Clinical notes, diagnosis descriptions and triage messages.",
    default_task="classification",
    epsilon_ceiling=8.0,
    column_hints={
        "text": (
            "description",
            "note",
            "clinical_note",
            "note_text",
            "diagnosis_text",
            "report",
            "complaint",
            "symptoms",
        ),
        "label": (
            "chapter",
            "icd10",
            "icd_code",
            "icd",
            "diagnosis",
            "code",
            "triage",
            "triage_level",
            "specialty",
        ),
    },
    unit_hints=(
        "patient_id",
        "patient",
        "mrn",
        "medical_record_number",
        "nhs_number",
        "subject_id",
        "hadm_id",
        "person_id",
    ),
    wording={
        "person": "patient",
        "people": "patients",
        "record": "record",
        "records": "records",
        "item": "procedure",
        "each_row": "Each row is one patient",
    },
    table_columns=tables.MEDICAL,
    protected=(*tables.SEX_COLUMNS, *tables.AGE_COLUMNS, *tables.ETHNICITY_COLUMNS),
    samples=(CLINIC_CODES,),
)
