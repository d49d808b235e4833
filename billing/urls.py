"""Billing pages under /t/<slug>/billing/."""

from django.urls import path

from billing import views

app_name = "billing"
urlpatterns = [
    path("t/<slug:slug>/billing/", views.overview, name="overview"),
    path("t/<slug:slug>/billing/order/", views.order, name="order"),
    path("t/<slug:slug>/billing/portal/", views.portal, name="portal"),
]
