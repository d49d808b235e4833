"""Django app: tenants."""

from django.apps import AppConfig


class TenantsConfig(AppConfig):
    """Tenants, members, keys and the vault."""

    name = "tenants"

    def ready(self) -> None:
        """Register what destroys again what a backup brought back, and what holds keys that rotate."""
        from tenants import rotation, vault
        from tenants.models import ObjectKey

        rotation.register(ObjectKey, lambda row: vault.key_place(row.object), related=("object",))
