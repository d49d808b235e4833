"""Inspection's step for personal data: the rows of a file under the policy that holds for it."""

from __future__ import annotations

from collections.abc import Sequence

from modeling.actions.personal_policy import policy_of_file
from modeling.core.columns import ColumnFacts, Guesses
from modeling.core.personal_policy import Policy
from modeling.core.personal_rows import Screening, chosen_columns
from modeling.models import DatasetVersion, File
from tenants.models import Tenant


def screening_of(tenant: Tenant, file: File, facts: Sequence[ColumnFacts], guesses: Guesses) -> Screening:
    """How this file's rows are looked through; a catalogue, which is declared public, is not. Inside the scope."""
    roles = {role: guess.column for role, guess in guesses.roles.items()}
    if file.purpose == File.Purpose.USER_DATA:
        return Screening(Policy({}), chosen_columns((), roles))
    held = policy_of_file(tenant, file.personal_data)
    return Screening(held.policy, chosen_columns(facts, roles, held.columns))


def keep(version: DatasetVersion, screening: Screening) -> None:
    """Keep what was found and done beside the version; inside the scope."""
    version.personal_data = screening.findings.as_json()
    rows = DatasetVersion.objects.of(version.tenant_id).filter(pk=version.pk)
    rows.update(personal_data=version.personal_data)
