"""The tenants' part of /v1."""

from django.urls import path

from tenants.api import TicketView

urlpatterns = [path("tickets", TicketView.as_view(), name="v1-tickets")]
