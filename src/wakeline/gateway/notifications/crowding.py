"""Ends the oldest of too many pushes that fail or wait, which leave no room for other users.

A session's outbox is one record, and full with some hundred pending messages. Users choose the receivers of pushes, and one
that accepts nothing, or never answers, would fill it for days. The function has no clock and does no I/O.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

import msgspec

from wakeline.gateway.notifications.deciding import PENDING_BYTES, PENDING_MESSAGES, is_full, size_of
from wakeline.gateway.notifications.values import KEPT_ATTEMPTS, Attempt, Box, Message

MOST_FAILING: Final = 5
"""The most pushes of one user in a session that have failed and are sent again."""

MOST_WAITING: Final = 20
"""The most pushes of one user that are pending in a full box, if no attempt was made of some for `SLOW_SECONDS`."""

SLOW_SECONDS: Final = 10.0
"""The age of a push without an attempt from which its user's endpoints are slow: attempts end after 15 seconds."""

REASON: Final = "too many pushes fail: the oldest is not sent again"
"""The last outcome of a failing message that ended for this."""

REASON_WAITING: Final = "too many pushes wait: the oldest is not sent"
"""The only outcome of a message that ended before an attempt."""

_IN_FLIGHT: Final = 4  # the oldest of a user, of which attempts are being made


def relieved(box: Box, channels: Collection[str], now: float) -> tuple[Box, list[Message]]:
    """Return the box without too many pushes, and those that were ended.

    A user keeps `MOST_FAILING` of those that fail; in a full box, a user with slow endpoints keeps `MOST_WAITING`. All
    those users together keep half of a box: the one with the most gives way. Critical messages are ended last.

    Args:
        box: The box.
        channels: The channels to devices.
        now: Unix time.
    """
    pushes = [one for one in box.messages if one.state == "pending" and one.channel in channels]
    failing = [one for one in pushes if one.failures]
    ended: dict[str, Message] = {}
    while crowd := _crowd(failing, MOST_FAILING):
        oldest = min(crowd, key=_rank)
        failing.remove(oldest)
        ended[oldest.id] = _ended(oldest, REASON, now)
    box = _changed(box, ended)
    slow = {one.user for one in pushes if not one.failures and one.created < now - SLOW_SECONDS}
    if not slow or not is_full(box):
        return box, list(ended.values())
    held = [one for one in pushes if one.user in slow and not one.failures] + failing
    while crowd := _crowd(held, MOST_WAITING):
        crowd = [one for one in crowd if not one.failures][_IN_FLIGHT:] or crowd
        oldest = min(crowd, key=_rank)
        held.remove(oldest)
        ended[oldest.id] = _ended(oldest, REASON if oldest.failures else REASON_WAITING, now)
    return _changed(box, ended), list(ended.values())


def _rank(message: Message) -> tuple[bool, float]:
    return message.critical, message.created


def _ended(message: Message, reason: str, now: float) -> Message:
    attempts = (*message.attempts[1 - KEPT_ATTEMPTS :], Attempt(round(now, 3), 0.0, reason))
    return msgspec.structs.replace(message, state="dead", attempts=attempts)


def _changed(box: Box, ended: Mapping[str, Message]) -> Box:
    return msgspec.structs.replace(box, messages=tuple(ended.get(message.id, message) for message in box.messages))


def _crowd(held: Iterable[Message], most_of_user: int) -> list[Message]:
    """Return the messages of the user who has too many, oldest first; none if nobody has."""
    of_user: dict[str, list[Message]] = {}
    for message in held:
        of_user.setdefault(message.user, []).append(message)
    most = max(of_user.values(), key=len, default=[])
    if len(most) > most_of_user or sum(map(len, of_user.values())) > PENDING_MESSAGES // 2:
        return most
    sizes = {user: sum(map(size_of, messages)) for user, messages in of_user.items()}
    return of_user[max(sizes, key=sizes.__getitem__)] if sum(sizes.values()) > PENDING_BYTES // 2 else []
