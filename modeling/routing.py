"""WebSocket routes."""

from __future__ import annotations

from django.urls import path

from modeling.consumers import JobConsumer

websocket_urlpatterns = [path("ws/jobs/<str:job_id>", JobConsumer.as_asgi())]
