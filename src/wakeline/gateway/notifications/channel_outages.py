"""Logs that attempts through a channel fail, with the reason, and that they succeed again."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from wakeline.gateway.notifications.channels.channel import Outcome
from wakeline.gateway.runtime import LoggedOutage

_QUIET_SECONDS: Final = 600.0
"""Seconds without a failure after which the next one is logged at once again."""


class ChannelOutages:
    """The outages of all channels.

    Args:
        to_devices: The channels to devices. Their users choose the receivers, of which a few always fail while others accept,
            so the first failure is not logged at once: only if another one follows, and nothing was accepted in between.
    """

    def __init__(self, to_devices: Collection[str]) -> None:
        self._to_devices = to_devices
        self._outages: dict[str, LoggedOutage] = {}

    def note(self, channel: str, outcome: Outcome) -> None:
        """Record the outcome of an attempt through a channel."""
        outage = self._outages.get(channel)
        if outcome.verdict in ("failed", "gone"):
            # A receiver that fails now and then, such as for one user, must not fill the log.
            at_once = channel not in self._to_devices and (outage is None or outage.quiet > _QUIET_SECONDS)
            if outage is None:
                outage = self._outages[channel] = LoggedOutage(
                    "notifications through a channel fail",
                    "notifications through a channel succeed again",
                    channel=channel,
                )
            outage.failed(outcome.reason, at_once=at_once)
        elif outcome.verdict == "delivered" and outage is not None:
            outage.over()
