"""Tickets: a token's grant for one request, for an EventSource or a WebSocket.

Those clients cannot send a header. A ticket grants as much as its token, but only once, so it may appear in a URL. Only
its hash is kept, in memory.
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
    """The tickets that were issued and not used yet.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._given: dict[bytes, tuple[float, Grant]] = {}  # in the order in which they expire
        self._of: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many tickets are unused."""
        return len(self._given)

    def give(self, grant: Grant) -> str:
        """Issue a ticket for what `grant` allows, and for no longer.

        Raises:
            LimitReachedError: The user, or all users together, have too many unused tickets.
        """
        self._forget()
        if self._of[grant.user] >= _PER_USER or len(self._given) >= _AT_ALL:
            raise LimitReachedError(
                "expected fewer unused tickets: use those issued before", retry_after=TICKET_SECONDS
            )
        ticket = secrets.token_urlsafe(32)
        self._given[_hash(ticket)] = (self._clock() + TICKET_SECONDS, grant)
        self._of[grant.user] += 1
        return ticket

    def use(self, ticket: str) -> Grant:
        """Return the grant of a ticket, which cannot be used again.

        Raises:
            TokenInvalidError: The ticket is unknown, used, or too old.
            TokenExpiredError: The token that it was issued for has expired.
        """
        self._forget()
        _, grant = self._given.get(key := _hash(ticket), (0.0, None))
        if grant is None:
            raise TokenInvalidError(
                f"expected an unused ticket that is at most {TICKET_SECONDS} s old",
                hint="Request another with POST /v1/tickets: each is valid for one request.",
            )
        self._remove(key)
        if grant.seconds_left() == 0:
            raise TokenExpiredError("the token of this ticket has expired", hint="Request a ticket with a new token.")
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
