"""Ends the oldest of too many failing pushes, which leave no room for other users.

A session's outbox is one record, and full with some hundred pending messages. Users choose the receivers of pushes, and one
that accepts nothing would fill it for days. The function has no clock and does no I/O.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import msgspec

from wakeline.gateway.notifications.deciding import PENDING_BYTES, PENDING_MESSAGES, size_of
from wakeline.gateway.notifications.values import KEPT_ATTEMPTS, Attempt, Box, Message

MOST_FAILING: Final = 5
"""The most pushes of one user in a session that have failed and are sent again."""

REASON: Final = "too many pushes fail: the oldest is not sent again"
"""The last outcome of a message that ended for this."""


def relieved(box: Box, channels: Collection[str], now: float) -> tuple[Box, list[Message]]:
    """Return the box without too many failing pushes, and those that were ended for it.

    A user keeps `MOST_FAILING`, and all users together half of a box: the one with the most gives way. A message that no
    attempt was made of yet is not ended, and critical ones are ended last.

    Args:
        box: The box.
        channels: The channels to devices.
        now: Unix time.
    """
    failing = [one for one in box.messages if one.state == "pending" and one.failures and one.channel in channels]
    ended: dict[str, Message] = {}
    while crowd := _crowd(failing):
        oldest = min(crowd, key=lambda one: (one.critical, one.created))
        failing.remove(oldest)
        attempts = (*oldest.attempts[1 - KEPT_ATTEMPTS :], Attempt(round(now, 3), 0.0, REASON))
        ended[oldest.id] = msgspec.structs.replace(oldest, state="dead", attempts=attempts)
    messages = tuple(ended.get(message.id, message) for message in box.messages)
    return msgspec.structs.replace(box, messages=messages), list(ended.values())


def _crowd(failing: Iterable[Message]) -> list[Message]:
    """Return the messages of the user who has too many; none if nobody has."""
    of_user: dict[str, list[Message]] = {}
    for message in failing:
        of_user.setdefault(message.user, []).append(message)
    most = max(of_user.values(), key=len, default=[])
    if len(most) > MOST_FAILING or sum(map(len, of_user.values())) > PENDING_MESSAGES // 2:
        return most
    sizes = {user: sum(map(size_of, messages)) for user, messages in of_user.items()}
    return of_user[max(sizes, key=sizes.__getitem__)] if sum(sizes.values()) > PENDING_BYTES // 2 else []
