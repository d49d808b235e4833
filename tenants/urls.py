"""Pages of a tenant: team, keys, audit, settings; and of a person: tenants and invitations."""

from django.urls import path

from tenants import views
from tenants.audit_views import audit_export, audit_head, audit_log
from tenants.key_views import encryption

app_name = "tenants"
urlpatterns = [
    path("tenants/", views.tenant_list, name="list"),
    path("tenants/new/", views.tenant_create, name="create"),
    path("invites/<str:token>/", views.invite, name="invite"),
    path("t/<slug:slug>/team/", views.team, name="team"),
    path("t/<slug:slug>/team/<uuid:member_id>/role/", views.member_role, name="member_role"),
    path("t/<slug:slug>/team/<uuid:member_id>/remove/", views.member_remove, name="member_remove"),
    path("t/<slug:slug>/invites/<uuid:invite_id>/withdraw/", views.invite_withdraw, name="invite_withdraw"),
    path("t/<slug:slug>/keys/", views.keys, name="keys"),
    path("t/<slug:slug>/keys/<str:key_id>/revoke/", views.key_revoke, name="key_revoke"),
    path("t/<slug:slug>/audit/", audit_log, name="audit"),
    path("t/<slug:slug>/audit/export.jsonl", audit_export, name="audit_export"),
    path("t/<slug:slug>/audit/head.json", audit_head, name="audit_head"),
    path("t/<slug:slug>/settings/", views.settings, name="settings"),
    path("t/<slug:slug>/settings/encryption/", encryption, name="encryption"),
    path("t/<slug:slug>/tickets/", views.ticket, name="ticket"),
]
