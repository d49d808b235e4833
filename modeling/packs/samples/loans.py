"""Harbor Bank's loan applications: a synthetic table from a fixed seed, with sex and age to be compared."""

from __future__ import annotations

import csv
import io
import math
import random

from modeling.packs.base import Sample

APPLICATIONS = 6_000
COLUMNS = (
    *("age", "sex", "annual_income", "years_employed", "home", "loan_amount", "term_months"),
    *("purpose", "open_accounts", "missed_payments", "credit_utilisation", "defaulted"),
)
HOMES = ("rents", "mortgage", "owns", "with family")
PURPOSES = ("car", "home improvement", "debt consolidation", "wedding", "medical", "business", "other")
_PURPOSE_RISK = (-0.3, -0.2, 0.3, 0.1, 0.2, 0.5, 0.0)
_HOME_RISK = (0.25, -0.25, -0.4, 0.1)
_TERMS = (12, 24, 36, 48, 60, 72)
_MISSING = 0.04  # of cells in columns that people leave empty


def _normal(source: random.Random) -> float:
    """A standard normal draw; only `random()` is drawn from, whose stream no Python version changes."""
    radius = math.sqrt(-2 * math.log(1 - source.random()))
    return radius * math.cos(2 * math.pi * source.random())


def _at(source: random.Random, count: int) -> int:
    return int(source.random() * count)


def _application(source: random.Random) -> list[str]:
    """One person's row. Default follows what was borrowed against income, missed payments and utilisation, with a
    floor for the very young; sex has no part in it, pay differs a little between the sexes."""
    is_woman = source.random() < 0.48
    age = min(max(round(40 + 13 * _normal(source)), 18), 84)
    worked = max(0, min(round((age - 19) * source.random()), 45))
    income = math.exp(10.25 + 0.014 * worked + (-0.09 if is_woman else 0.0) + 0.42 * _normal(source))
    home, purpose = _at(source, len(HOMES)), _at(source, len(PURPOSES))
    amount = 500 * round(math.exp(8.9 + 0.65 * _normal(source)) / 500 + 1)
    term = _TERMS[_at(source, len(_TERMS))]
    accounts = min(round(math.exp(1.2 + 0.5 * _normal(source))), 20)
    missed = 0 if source.random() < 0.72 else min(1 + int(-2 * math.log(1 - source.random())), 12)
    used = 1 / (1 + math.exp(0.6 - 1.3 * _normal(source)))
    burden = amount / income * 12 / term
    risk = -3.3 + 2.6 * math.log1p(4 * burden) + 1.7 * used**2 + 0.55 * math.sqrt(missed)
    risk += _PURPOSE_RISK[purpose] + _HOME_RISK[home] + (0.6 if age < 23 else 0.0) - 0.03 * min(worked, 15)
    defaulted = source.random() < 1 / (1 + math.exp(-risk))
    row = [
        str(age),
        "female" if is_woman else "male",
        str(100 * round(income / 100)),
        "" if source.random() < _MISSING else str(worked),
        HOMES[home],
        str(amount),
        str(term),
        PURPOSES[purpose],
        str(accounts),
        "" if source.random() < _MISSING else str(missed),
        f"{used:.2f}",
    ]
    return [*row, "yes" if defaulted else "no"]


def loan_csv() -> bytes:
    """The applications as UTF-8 CSV; each row is one person."""
    source = random.Random(20_260_103)  # noqa: S311 - a repeatable stream, nothing secret
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_application(source) for _ in range(APPLICATIONS))
    return sink.getvalue().encode()


BANK_LOANS = Sample(
    slug="bank-loans",
    title="Loan applications (synthetic)",
    filename="harbor-bank-loans-synthetic.csv",
    purpose="fine-tune",
    format="csv",
    task="classification",
    columns={"label": "defaulted"},
    unit="",
    rows=APPLICATIONS,
    sha256="c0c14ba96cd98c0bd331c3e9b9eb3a84f7064c22cb9ae4471e53d8a58256b53a",
    is_synthetic=True,
    licence="Synthetic, made by Cloister's seeded generator: free to use.",
    about="Synthetic: each row stands for one person. Sex and age are compared for fairness, never learnt from.",
    build=loan_csv,
)
