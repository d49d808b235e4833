"""What a caller asks for when starting a job: the same fields from the API, the pages and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class PrivacySpec:
    """The wanted protection. `unit` None means: as guessed, or as fixed by the dataset's first private job."""

    mode: str = "on"  # on | off
    epsilon: float | None = None  # None: 8, or the pack's ceiling where that is lower
    delta: float | None = None  # None: the house rule
    unit: str | None = None  # a column; "" says that each row is one person
    reason: str = ""  # why privacy is off
    allow_large_epsilon: bool = False  # an owner's explicit override


@dataclass(frozen=True)
class JobSpec:
    """One job as asked for; empty fields are guessed from the file."""

    training_file: str  # public id
    model: str = ""  # a base model; "" picks the task's
    task: str = ""  # classification | regression | recommendation | chat
    method: str = "auto"  # auto, or one of the task's methods
    columns: Mapping[str, str] = field(default_factory=dict)  # role -> column
    labels: tuple[str, ...] = ()
    catalogue_file: str = ""
    privacy: PrivacySpec = PrivacySpec()
    max_steps: int | None = None
    suffix: str = ""
    multi_label: bool = False  # the label column holds several labels a row
    features: tuple[Mapping[str, Any], ...] = ()  # tables: {"name", "kind"?, "low"?, "high"?, "categories"?}
    target: Mapping[str, Any] | None = None  # regression: {"low", "high"} of the label column
    protected: tuple[str, ...] = ()  # columns of the fairness report
    sweep_runs: float = 0.0  # expected number of runs; 0: one run
    audit: bool = False
    dataset_version: int | None = None  # None: the newest
    priority: str = "normal"  # high | normal | low, among the tenant's own jobs

    def dump(self) -> dict[str, Any]:
        """JSON, for the job's row."""
        return {
            **asdict(self),
            "columns": dict(self.columns),
            "labels": list(self.labels),
            "features": [dict(one) for one in self.features],
            "protected": list(self.protected),
        }


def load_spec(data: Mapping[str, Any]) -> JobSpec:
    """The inverse of `JobSpec.dump`."""
    return JobSpec(
        **{
            **data,
            "labels": tuple(data["labels"]),
            "features": tuple(data.get("features", ())),
            "protected": tuple(data.get("protected", ())),
            "privacy": PrivacySpec(**data["privacy"]),
        }
    )
