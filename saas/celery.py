"""The task queue: one app, two queues, the timetable. Messages are hints; the rows are the truth."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "saas.settings")

from celery import Celery, signals
from celery.schedules import crontab
from django.conf import settings

from saas import liveness
from saas.lib import draining
from saas.processes import die_with_parent

TRAIN, QUICK = "train", "quick"
# What a training child needs, loaded once: forked children share the memory.
BEFORE_FORK = ("torch", "modeling.core.training", "modeling.core.heads.classify")
UNLIMITED = (
    "modeling.train_job",
    "modeling.inspect_file",
    "modeling.make_version",
    "modeling.measure_quality",
    "tenants.rotate_keys",
)
TRAINING_NICENESS = 5  # whoever answers people goes first


def route(name: str, *_: Any, **__: Any) -> dict[str, str]:
    """Training runs alone in its own worker; everything else is quick."""
    return {"queue": TRAIN if name == "modeling.train_job" else QUICK}


def every(task: str, seconds: float) -> dict[str, Any]:
    """A timetable entry; a message expires before the next one, so that a busy worker finds no pile."""
    return {"task": task, "schedule": seconds, "options": {"expires": seconds}}


def nightly(task: str, hour: int, minute: int) -> dict[str, Any]:
    """A timetable entry for once a night (UTC)."""
    return {"task": task, "schedule": crontab(hour=hour, minute=minute), "options": {"expires": 3600}}


class Limits:
    """How long each task may take. A table would not do: Celery lets its "*" win over a task's own line."""

    def annotate(self, task: Any) -> dict[str, Any] | None:
        """Half an hour, unless the task renews a lease while it goes on: 4 GB of rows may take longer."""
        return None if task.name in UNLIMITED else {"soft_time_limit": 1800, "time_limit": 1860}

    def annotate_any(self) -> dict[str, Any] | None:
        """Nothing for all alike."""
        return None


app = Celery("cloister")
app.conf.update(
    broker_url=settings.REDIS_URL,
    broker_connection_retry_on_startup=True,
    # Longer than any task: Celery over Redis hands an unacknowledged message out again after this time.
    broker_transport_options={"visibility_timeout": 24 * 3600},
    result_backend=None,
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    task_default_queue=QUICK,
    task_routes=(route,),
    # Acknowledged on receipt: a killed child must not loop as poison, and the sweeper sends lost hints again.
    task_acks_late=False,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    task_annotations=(Limits(),),
    timezone="UTC",
    beat_schedule={
        "modeling.sweep": every("modeling.sweep", 15),
        "modeling.run_batches": every("modeling.run_batches", 15),
        "modeling.forget_predictions": every("modeling.forget_predictions", 3600),
        "modeling.apply_retention": every("modeling.apply_retention", 3600),
        "modeling.sweep_kept_streams": every("modeling.sweep_kept_streams", 600),
        "modeling.expire_uploads": every("modeling.expire_uploads", 300),
        "modeling.expire_files": every("modeling.expire_files", 300),
        "modeling.erase_tenants": every("modeling.erase_tenants", 300),
        "tenants.watch_keys": every("tenants.watch_keys", 15),
        "billing.process_events": every("billing.process_events", 10),
        "billing.report_usage": every("billing.report_usage", 300),
        "billing.measure_storage": every("billing.measure_storage", 3600),
        "billing.reconcile": nightly("billing.reconcile", 2, 30),
        "modeling.forget_served": nightly("modeling.forget_served", 3, 10),
        "tenants.sweep_vault": nightly("tenants.sweep_vault", 3, 40),
    },
)
if "beat" not in sys.argv:  # the timetable only sends names
    app.autodiscover_tasks(["tenants", "billing", "modeling"])
app.set_default()

_parent = os.getpid()
_kind = ""


@signals.celeryd_init.connect
def _prepare(options: dict[str, Any], **_: Any) -> None:
    """In the worker's parent, before it forks: the training worker loads torch once for all its children."""
    global _parent, _kind
    _parent = os.getpid()
    _kind = TRAIN if TRAIN in str(options.get("queues")) else QUICK
    if _kind == TRAIN:
        for name in BEFORE_FORK:
            importlib.import_module(name)


@signals.worker_process_init.connect
def _tie_child(**_: Any) -> None:
    """A forked child dies with its worker, and training yields the cores."""
    die_with_parent(signal.SIGKILL, _parent)
    if _kind == TRAIN:
        os.nice(TRAINING_NICENESS)


@signals.worker_ready.connect
def _worker_lives(**_: Any) -> None:
    liveness.announce(_kind)


@signals.worker_shutting_down.connect
def _worker_goes(**_: Any) -> None:
    draining.ask()
    liveness.withdraw(_kind)


@signals.worker_shutdown.connect
def _worker_gone(**_: Any) -> None:
    """All is stopped; only the interpreter's own tidying is left, which takes seconds after torch: skip it."""
    if draining.is_asked():
        logging.shutdown()
        os._exit(0)


@signals.beat_init.connect
def _timetable_lives(**_: Any) -> None:
    liveness.announce("timetable")
