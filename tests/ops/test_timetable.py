"""The timetable names tasks that exist, and only training goes to the training queue."""

from __future__ import annotations

import importlib

from saas.celery import QUICK, TRAIN, UNLIMITED, app, route


def test_every_entry_is_a_task() -> None:
    for name in ("tenants.tasks", "billing.tasks", "modeling.tasks"):
        importlib.import_module(name)
    named = {entry["task"] for entry in app.conf.beat_schedule.values()}
    assert named
    assert named - set(app.tasks) == set()


def test_training_runs_alone() -> None:
    assert route("modeling.train_job") == {"queue": TRAIN}
    assert route("modeling.inspect_file") == {"queue": QUICK}


def _limit(name: str) -> float | None:
    """The soft limit under which a worker runs a task, in seconds, as Celery itself works it out."""
    found: float | None = app.tasks[name].soft_time_limit
    return found


def test_work_that_renews_its_lease_takes_its_time() -> None:
    for name in ("modeling.tasks", "tenants.tasks"):
        importlib.import_module(name)
    assert {name: _limit(name) for name in UNLIMITED} == dict.fromkeys(UNLIMITED)
    assert {_limit(name) for name in ("modeling.sweep", "modeling.compare_versions")} == {1800}
