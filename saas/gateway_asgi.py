"""The gateway as a process of its own: uvicorn saas.gateway_asgi:application, behind the proxy's rule for its paths."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "saas.settings")

import django

django.setup(set_prefix=False)

from modeling.serving.gateway import application

__all__ = ["application"]
