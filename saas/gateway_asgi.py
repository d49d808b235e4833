"""The gateway as a process of its own: uvicorn saas.gateway_asgi:application, behind the proxy's rule for its paths."""

from __future__ import annotations

import gc
import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "saas.settings")

import django

django.setup(set_prefix=False)

from modeling.serving.gateway import application

# A thread that writes usage hands the interpreter back this soon when a request waits for it.
sys.setswitchinterval(0.0005)
gc.collect()
gc.freeze()  # what is loaded now stays: no later collection walks through it

__all__ = ["application"]
