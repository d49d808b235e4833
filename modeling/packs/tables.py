"""What common columns of tables hold: public bounds and categories, and the attributes that are only compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

YES_NO = ("no", "yes")
SEXES = ("female", "male", "other")


@dataclass(frozen=True)
class KnownColumn:
    """Bounds of a number, or all categories; public knowledge about a column of this name, in no file."""

    kind: str  # number | category
    low: float = 0.0
    high: float = 0.0
    categories: tuple[str, ...] = ()


def _number(low: float, high: float) -> KnownColumn:
    return KnownColumn("number", low, high)


def _category(*names: str) -> KnownColumn:
    return KnownColumn("category", categories=names)


# An attribute that is only compared is cut into bands where it is a number: the names say the bounds.
AGE_BANDS = ("under 25", "25-34", "35-44", "45-54", "55-64", "65+")
BANDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"age": AGE_BANDS, "age_years": AGE_BANDS, "applicant_age": AGE_BANDS, "patient_age": AGE_BANDS}
)
SEX_COLUMNS = ("sex", "gender")
AGE_COLUMNS = ("age", "age_years", "age_band", "age_group")
ETHNICITY_COLUMNS = ("ethnicity", "ethnic_group", "race")

SHARED: Mapping[str, KnownColumn] = MappingProxyType(
    {
        "age": _number(18, 100),
        "age_years": _number(18, 100),
        "sex": _category(*SEXES),
        "gender": _category(*SEXES),
        "income": _number(0, 200_000),
        "annual_income": _number(0, 200_000),
        "monthly_income": _number(0, 20_000),
        "household_size": _number(1, 10),
        "children": _number(0, 10),
        "marital_status": _category("single", "married", "divorced", "separated", "widowed"),
    }
)

FINANCE: Mapping[str, KnownColumn] = MappingProxyType(
    {
        "loan_amount": _number(0, 50_000),
        "amount": _number(0, 50_000),
        "term_months": _number(6, 84),
        "years_employed": _number(0, 45),
        "employment_years": _number(0, 45),
        "monthly_debt": _number(0, 5_000),
        "debt_to_income": _number(0, 1),
        "credit_score": _number(300, 850),
        "open_accounts": _number(0, 20),
        "missed_payments": _number(0, 12),
        "delinquencies": _number(0, 12),
        "credit_utilisation": _number(0, 1),
        "credit_utilization": _number(0, 1),
        "interest_rate": _number(0, 40),
        "savings": _number(0, 100_000),
        "balance": _number(-10_000, 100_000),
        "home": _category("rents", "mortgage", "owns", "with family"),
        "home_ownership": _category("rents", "mortgage", "owns", "with family"),
        "purpose": _category(
            "car", "home improvement", "debt consolidation", "wedding", "medical", "business", "other"
        ),
    }
)

MEDICAL: Mapping[str, KnownColumn] = MappingProxyType(
    {
        "age": _number(0, 110),
        "age_years": _number(0, 110),
        "bmi": _number(10, 60),
        "height_cm": _number(40, 220),
        "weight_kg": _number(2, 220),
        "systolic": _number(60, 240),
        "systolic_bp": _number(60, 240),
        "diastolic": _number(30, 140),
        "diastolic_bp": _number(30, 140),
        "heart_rate": _number(30, 220),
        "respiratory_rate": _number(4, 60),
        "temperature_c": _number(32, 43),
        "oxygen_saturation": _number(50, 100),
        "glucose": _number(40, 400),
        "hba1c": _number(3, 16),
        "cholesterol": _number(80, 400),
        "creatinine": _number(0, 10),
        "pregnancies": _number(0, 15),
        "smoker": _category(*YES_NO),
        "diabetic": _category(*YES_NO),
    }
)
