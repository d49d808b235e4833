"""POST /v1/tickets: a one-use ticket for a WebSocket."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.response import Response

from tenants.access import TICKET_SECONDS, ApiRequest, TenantAPIView, issue_ticket

TICKET = inline_serializer(
    "Ticket",
    {
        "object": serializers.CharField(),
        "ticket": serializers.CharField(),
        "expires_in": serializers.IntegerField(),
    },
)


class TicketView(TenantAPIView):
    """Tickets for `/ws/…?ticket=`, for programs that cannot set headers on a WebSocket."""

    @extend_schema(operation_id="createTicket", request=None, responses={200: TICKET}, tags=["Tickets"])
    def post(self, request: ApiRequest) -> Response:
        """A ticket for one WebSocket, good for 30 seconds."""
        ticket = issue_ticket(request.auth, request.auth.tenant)
        return Response({"object": "ticket", "ticket": ticket, "expires_in": TICKET_SECONDS})
