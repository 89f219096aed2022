"""Reports the gateway's own condition as events of a session, for people and rules."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

import msgspec
import structlog

from wakeline.errors import UnavailableError, WakelineError
from wakeline.events import CHANNEL_DISABLED, CHANNEL_ENABLED, compose, timestamp
from wakeline.gateway.log import Append, Log, Publication

PUBLISHER: Final = "channel:"
_log = structlog.get_logger(__name__)


class Operations:
    """Appends to the session of the settings.

    Args:
        log: The log.
        session: The session's name; None reports nothing.
    """

    def __init__(self, log: Log, session: str | None) -> None:
        self._log = log
        self._session = session

    async def channel_changed(self, channel: str, failing: float, *, disabled: bool, reason: str = "") -> None:
        """Report that a channel was disabled or enabled; a repeated report appends nothing.

        Args:
            channel: The channel's name.
            failing: Unix time of its first failure, by which the report is known.
            disabled: Whether it was disabled.
            reason: The outcome of the last attempt, for a channel that was disabled.

        Raises:
            UnavailableError: It is unknown whether the report is stored: report again.
        """
        if self._session is None:
            return
        data = {"channel": channel}
        if disabled:
            data |= {"failing_since": timestamp(datetime.fromtimestamp(failing, UTC)), "reason": reason}
        kind = CHANNEL_DISABLED if disabled else CHANNEL_ENABLED
        name = sha256(channel.encode()).hexdigest()[:16]
        publication = Publication(f"{PUBLISHER}{name}/{round(failing * 1000)}/{kind.rpartition('.')[2]}")
        event = compose(kind, msgspec.json.encode(data), time=timestamp())
        try:
            await self._log.append(Append(self._session, (event,), publication))
        except UnavailableError:
            raise
        except WakelineError as error:  # such as a closed session: sending must go on
            _log.warning("a channel's change could not be reported", session=self._session, error=error.message)
