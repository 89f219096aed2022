"""Tickets: a token's power for one request, for those who cannot send a header (an EventSource, a WebSocket).

They are kept in memory and only by their hash. A ticket is as good as its token, but worthless once it was used, so it may
stand in a URL.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from time import monotonic
from typing import Final

from wakeline.errors import LimitReachedError, TokenExpiredError, TokenInvalidError
from wakeline.gateway.access.grants import Grant

TICKET_SECONDS: Final = 30
_PER_USER: Final = 1_000
_AT_ALL: Final = 100_000


class Tickets:
    """The tickets that have been given and not been used.

    Args:
        clock: Tells the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._given: dict[bytes, tuple[float, Grant]] = {}  # in the order in which they end
        self._of: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many wait to be used."""
        return len(self._given)

    def give(self, grant: Grant) -> str:
        """A new ticket for what `grant` allows, and for no longer.

        Raises:
            LimitReachedError: Too many of this user, or at all, have not been used.
        """
        self._forget()
        if self._of[grant.user] >= _PER_USER or len(self._given) >= _AT_ALL:
            raise LimitReachedError("expected the tickets given before to be used first", retry_after=TICKET_SECONDS)
        ticket = secrets.token_urlsafe(32)
        self._given[_hash(ticket)] = (self._clock() + TICKET_SECONDS, grant)
        self._of[grant.user] += 1
        return ticket

    def use(self, ticket: str) -> Grant:
        """What the ticket is good for; it is worthless from now on.

        Raises:
            TokenInvalidError: It is none of ours, was used, or is too old.
            TokenExpiredError: The token that it was given for has ended.
        """
        self._forget()
        _, grant = self._given.get(key := _hash(ticket), (0.0, None))
        if grant is None:
            raise TokenInvalidError(
                f"expected a ticket that is not used and at most {TICKET_SECONDS} s old",
                hint="Ask for another with POST /v1/tickets: each is good for one request.",
            )
        self._remove(key)
        if grant.seconds_left() == 0:
            raise TokenExpiredError("the token of this ticket has ended", hint="Ask for a ticket with a new token.")
        return grant

    def _forget(self) -> None:
        now = self._clock()
        while self._given:
            key = next(iter(self._given))
            if self._given[key][0] > now:
                return
            self._remove(key)

    def _remove(self, key: bytes) -> None:
        _, grant = self._given.pop(key)
        self._of[grant.user] -= 1
        if not self._of[grant.user]:
            del self._of[grant.user]


def _hash(ticket: str) -> bytes:
    return sha256(ticket.encode(errors="replace")).digest()
