"""Logs Temporal's refusals of inputs, once for each session and status."""

from __future__ import annotations

from typing import Final

import structlog

_NEXT: Final = {
    "PERMISSION_DENIED": "Allow the gateway's identity to signal, update, start and describe workflows of the namespace.",
    "UNAUTHENTICATED": "Give the gateway a valid temporal_api_key or client certificate, and restart it.",
}
_log = structlog.get_logger(__name__)


class Refusals:
    """The refusals that were logged."""

    def __init__(self) -> None:
        self._logged: dict[str, set[str]] = {}  # the statuses of each session

    def log(self, session: str, input: str, status: str) -> None:
        """Log a refusal of an input, unless the session has had one with this status."""
        if status not in (statuses := self._logged.setdefault(session, set())):
            statuses.add(status)
            _log.warning(
                "Temporal refuses an input; it is tried again",
                session=session,
                input=input,
                status=status,
                hint=_NEXT[status],
            )

    def forget(self, session: str) -> None:
        """Log the next refusal of a session again: an input of it has an outcome."""
        self._logged.pop(session, None)
