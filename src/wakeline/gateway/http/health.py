"""Health and metrics of the gateway."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from wakeline.errors import StorageFailedError
from wakeline.gateway.access import GRANT
from wakeline.gateway.http.answers import json_answer
from wakeline.gateway.http.group import Group, route
from wakeline.gateway.runtime import failing

_REASON: Final = "the gateway's log has the reason"
_SERVES: Final = ("ok", "full")
"""How the health of a log begins whose sessions can be read."""


class HealthRoutes(Group):
    """`/healthz`, `/readyz` and `/metrics`."""

    @route("GET", "/healthz")
    async def healthz(self, _: web.Request) -> web.Response:
        """Report that the process serves requests."""
        return json_answer({"status": "ok"})

    @route("GET", "/readyz")
    async def readyz(self, _: web.Request) -> web.Response:
        """Report the state of the log, of Temporal, of background tasks and of erasure."""
        connections = self._parts.temporal
        temporal = _public(connections.health()) if connections else "off"
        in_time = self._parts.engine.erasure_pending() <= self._parts.settings.erase_within
        answer: dict[str, Any] = {"temporal": temporal, "erasure": "ok" if in_time else "overdue"}
        if connections and len(healths := connections.healths()) > 1:
            answer["namespaces"] = {name: _public(health) for name, health in healths.items()}
        log = self._parts.engine.health()
        if log.startswith(_SERVES):
            try:
                await self._parts.engine.get_record("readyz")
                log = self._parts.engine.health()
            except StorageFailedError as error:
                log = f"failed: {error.message}; {_REASON}"
        if tasks := failing():
            answer["tasks"] = tasks
        if self._parts.lasting.leaving:
            return json_answer({"status": "stopping", "log": log, **answer}, status=503)
        if not log.startswith(_SERVES):
            return json_answer({"status": "unready", "log": log, **answer}, status=503)
        well = log == "ok" and temporal in ("ok", "off") and in_time and not tasks
        return json_answer({"status": "ready" if well else "degraded", "log": log, **answer})

    @route("GET", "/metrics")
    async def metrics(self, request: web.Request) -> web.Response:
        """Return all metrics in Prometheus's text format."""
        request[GRANT].check("manage")
        return web.Response(body=self._parts.metrics.expose(), headers={"Content-Type": "text/plain; version=0.0.4"})


def _public(health: str) -> str:
    """Return Temporal's health as anybody may read it: the reason may name an address."""
    return f"unreachable: {_REASON}" if health.startswith("unreachable") else health
