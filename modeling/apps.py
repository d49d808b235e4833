"""Django app: modeling."""

from django.apps import AppConfig


class ModelingConfig(AppConfig):
    """Datasets, jobs, models and endpoints."""

    name = "modeling"
