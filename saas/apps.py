"""Django app: the wiring. Makes the Celery app current wherever Django is set up."""

from __future__ import annotations

from django.apps import AppConfig


class SaasConfig(AppConfig):
    """Static files, commands and the task queue's app."""

    name = "saas"

    def ready(self) -> None:
        """Load the Celery app, so that enqueue() finds its broker in every process."""
        from saas import celery  # noqa: F401
