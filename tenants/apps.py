"""Django app: tenants."""

from django.apps import AppConfig


class TenantsConfig(AppConfig):
    """Tenants, members, keys and the vault."""

    name = "tenants"
