"""The timetable names tasks that exist, and only training goes to the training queue."""

from __future__ import annotations

import importlib

from saas.celery import QUICK, TRAIN, app, route


def test_every_entry_is_a_task() -> None:
    for name in ("tenants.tasks", "billing.tasks", "modeling.tasks"):
        importlib.import_module(name)
    named = {entry["task"] for entry in app.conf.beat_schedule.values()}
    assert named
    assert named - set(app.tasks) == set()


def test_training_runs_alone() -> None:
    assert route("modeling.train_job") == {"queue": TRAIN}
    assert route("modeling.inspect_file") == {"queue": QUICK}
