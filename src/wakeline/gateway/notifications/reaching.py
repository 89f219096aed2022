"""Sends one message to each push subscription of a user, and sums up the outcomes."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Collection, Sequence
from typing import Final

import msgspec
import structlog

from wakeline.errors import UnavailableError
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.notifications.channels.channel import Channel, Notification, Outcome, Subscription
from wakeline.gateway.notifications.channels.resolver import looking_up_for
from wakeline.gateway.notifications.subscriptions import Subscriptions, short_name

_MOST_REASON: Final = 120
_log = structlog.get_logger(__name__)


class Devices:
    """Reaches the devices of a user through a channel to devices.

    Args:
        subscriptions: The subscriptions of users.
        metrics: Counts the subscriptions that are removed.
    """

    def __init__(self, subscriptions: Subscriptions, metrics: Metrics) -> None:
        self._subscriptions = subscriptions
        self._metrics = metrics

    async def send(self, channel: Channel, notification: Notification, reached: Collection[str]) -> Outcome:
        """Make one attempt for each device that does not have the notification yet.

        Args:
            channel: The channel.
            notification: The notification.
            reached: The devices that have it, by their short names.
        """
        found = await self._subscriptions.of(notification.user)
        left = [one for one in found if short_name(one.device) not in reached]
        sent = [channel.send(msgspec.structs.replace(notification, subscription=one)) for one in left]
        # An error of one device must not hide that the others have the notification: they would get it again.
        with looking_up_for(notification.user):
            results = await asyncio.gather(*sent, return_exceptions=True)
        made = [failure(one) if isinstance(one, BaseException) else one for one in results]
        outcomes = list(zip(left, made, strict=True))
        await self._note(notification.user, outcomes)
        return summed_up(outcomes, reached)

    async def _note(self, user: str, outcomes: Sequence[tuple[Subscription, Outcome]]) -> None:
        try:
            removals = await self._subscriptions.note(user, outcomes, time.time())
        except UnavailableError:  # a subscription that is gone is so at the next push, too
            return
        for reason in removals:
            self._metrics.subscriptions_removed.labels(reason).inc()
            _log.info("a push subscription was removed", user=user, reason=reason)


def failure(error: BaseException) -> Outcome:
    """Return the outcome of an attempt that raised an error, and log where it was raised.

    An attempt raises nothing by its contract. If it does, it counts as a failed one, so that the message ends after as many
    attempts as any other. The error's text is left out: it may have the receiver's address.
    """
    frames = "".join(traceback.format_tb(error.__traceback__))
    _log.error("an attempt to notify raised an error", error=type(error).__name__, frames=frames)
    return Outcome("failed", type(error).__name__)


def summed_up(outcomes: Sequence[tuple[Subscription, Outcome]], reached: Collection[str]) -> Outcome:
    """Return the outcome of an attempt from those of its devices.

    Args:
        outcomes: The outcomes of this attempt.
        reached: The devices that had the notification before it, by their short names.
    """
    verdicts = {outcome.verdict for _, outcome in outcomes}
    now = tuple(short_name(one.device) for one, outcome in outcomes if outcome.verdict == "delivered")
    reason = ", ".join(f"{one.device}: {outcome.reason}" for one, outcome in outcomes)
    if "failed" in verdicts:
        wanted = max(outcome.retry_after for _, outcome in outcomes)
        return Outcome("failed", _cut(reason), wanted, now)
    if now or reached:
        return Outcome("delivered", _cut(reason) or "every device has it", reached=now)
    if "refused" in verdicts:
        return Outcome("refused", _cut(reason))
    return Outcome("unneeded", _cut(reason) or "the user has no push subscription")


def _cut(reason: str) -> str:
    return reason if len(reason) <= _MOST_REASON else f"{reason[: _MOST_REASON - 1]}…"
