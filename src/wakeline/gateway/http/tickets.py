"""The route that issues tickets, which EventSources and WebSockets send as their token."""

from __future__ import annotations

from aiohttp import web

from wakeline.errors import TokenMissingError
from wakeline.gateway.access import GRANT, TICKET_SECONDS
from wakeline.gateway.http.answers import json_answer
from wakeline.gateway.http.group import Group, route


class TicketRoutes(Group):
    """`/v1/tickets`."""

    @route("POST", "/v1/tickets")
    async def give(self, request: web.Request) -> web.Response:
        """Issue a ticket for what the token allows."""
        if "ticket" in request.query:  # a leaked ticket could otherwise be renewed for as long as its token is valid
            raise TokenMissingError(
                "expected a token, got a ticket, which cannot request another ticket",
                hint="Send the token as Authorization: Bearer …, or in the cookie wakeline_token.",
            )
        grant = request[GRANT]
        self._parts.limits.ticket(request, grant)
        return json_answer({"ticket": await self._parts.tickets.give(grant), "expires_in": TICKET_SECONDS})
