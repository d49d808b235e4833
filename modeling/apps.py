"""Django app: modeling."""

from django.apps import AppConfig


class ModelingConfig(AppConfig):
    """Datasets, jobs, models and endpoints."""

    name = "modeling"

    def ready(self) -> None:
        """Register what destroys again what a backup brought back, and what holds keys that rotate."""
        from modeling.actions import replaying  # noqa: F401 (registers itself)
        from modeling.models import DatasetKey, PredictionKey
        from modeling.models.datasets import dataset_place
        from tenants import rotation

        rotation.register(DatasetKey, lambda row: dataset_place(row.dataset_id))
        rotation.register(PredictionKey, lambda row: row.place)
