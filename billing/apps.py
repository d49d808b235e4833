"""Django app: billing."""

from django.apps import AppConfig


class BillingConfig(AppConfig):
    """Plans, limits, usage and Stripe."""

    name = "billing"
