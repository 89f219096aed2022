"""How much one caller may use: open connections, and events and tickets per second.

Each is counted for the token's user, and if there is none, for the caller's address; connections count for both. Calls
from this machine have no address limits, because they come from a proxy or a test. A gateway that requires no token
listens on loopback only, and so limits nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Final

from aiohttp import web

from wakeline.errors import LimitReachedError
from wakeline.gateway.access.addresses import Addresses
from wakeline.gateway.access.grants import Grant
from wakeline.gateway.settings import Settings

_BURST_SECONDS: Final = 5.0
_HELD_RETRY: Final = 5
_KEPT: Final = 10_000


class Rate:
    """A rate limit for each of many callers: a bucket that fills steadily and is drawn from.

    A bucket that is not empty may be overdrawn: a batch larger than the bucket passes, and the caller waits afterwards.

    Args:
        per_second: How fast a bucket fills; 0 for no limit. It holds the amount of five seconds.
        clock: Returns the time in seconds.

    Attributes:
        per_second: How fast a bucket fills.
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = monotonic) -> None:
        self.per_second = per_second
        self._clock = clock
        # When each caller's bucket will be full; a caller that is missing here has a full one.
        self._full_at: dict[str, float] = {}

    def __len__(self) -> int:
        """Return how many callers have a bucket that may not be full."""
        return len(self._full_at)

    def draw(self, caller: str, amount: float) -> float:
        """Draw `amount` from a caller's bucket if it is not empty.

        Returns:
            0 if it was drawn; otherwise the seconds to wait first, and nothing was drawn.
        """
        if not self.per_second:
            return 0
        now = self._clock()
        full_at = max(now, self._full_at.get(caller, now))
        if (wait := full_at - now - _BURST_SECONDS) >= 0:
            return max(wait, 1 / self.per_second)
        if caller not in self._full_at and len(self._full_at) >= _KEPT:
            self._forget(now)
        self._full_at[caller] = full_at + amount / self.per_second
        return 0

    def _forget(self, now: float) -> None:
        """Drop full buckets, and all but the emptiest `_KEPT // 2`, so that memory stays bounded."""
        kept = sorted((full, caller) for caller, full in self._full_at.items() if full > now)
        self._full_at = {caller: full for full, caller in kept[-_KEPT // 2 :]}


class _Count(Counter[str]):
    """How many connections each user, or each address, holds.

    Args:
        what: `user` or `address`.
        most: The greatest number for each; 0 for no limit.
    """

    def __init__(self, what: str, most: int) -> None:
        super().__init__()
        self.what, self.most = what, most


class Held:
    """Counts one connection for its user and its address inside a block.

    It is a class and not a generator because every stream holds one, and a generator's frame takes a kilobyte.
    """

    __slots__ = ("_counted",)

    def __init__(self, *counted: tuple[_Count, str | None]) -> None:
        self._counted = [(count, caller) for count, caller in counted if caller and count.most]

    def __enter__(self) -> None:
        """Count the connection.

        Raises:
            LimitReachedError: A count is at its limit; nothing was counted.
        """
        for count, caller in self._counted:
            if count[caller] >= count.most:
                message = f"expected at most {count.most} connections of one {count.what}"
                raise LimitReachedError(message, retry_after=_HELD_RETRY)
        for count, caller in self._counted:
            count[caller] += 1

    def __exit__(self, *_: object) -> None:
        """Stop counting the connection; a caller without connections takes no memory."""
        for count, caller in self._counted:
            count[caller] -= 1
            if not count[caller]:
                del count[caller]


class Limits:
    """The limits on each caller's connections, events and tickets.

    Args:
        settings: The limits; each is off at 0.
        addresses: Determines the address that a request counts for.

    Attributes:
        subscriptions: The most sessions on one feed; 0 for no limit.
    """

    def __init__(self, settings: Settings, addresses: Addresses) -> None:
        self.subscriptions = settings.feed_subscriptions
        self._addresses = addresses
        self._users = _Count("user", settings.user_connections)
        self._callers = _Count("address", settings.address_connections)
        self._published = Rate(settings.publish_rate)
        self._tickets = Rate(settings.ticket_rate)

    def connection(self, request: web.Request, grant: Grant) -> Held:
        """Count a connection (a stream, a feed, a long-poll) inside a block.

        Raises:
            LimitReachedError: On entering: the address or the user holds as many connections as allowed.
        """
        return Held((self._callers, self._addresses.caller(request)), (self._users, grant.user))

    def address(self, request: web.Request) -> Held:
        """Count a connection for its address only, because its user has not authenticated yet."""
        return Held((self._callers, self._addresses.caller(request)))

    def user(self, grant: Grant) -> Held:
        """Count a connection for its user only."""
        return Held((self._users, grant.user))

    def publish(self, request: web.Request, grant: Grant, events: int) -> None:
        """Count events that are to be published.

        Raises:
            LimitReachedError: The caller publishes too fast; it may send these events again after `Retry-After`.
        """
        self._draw(self._published, request, grant, events, "events")

    def ticket(self, request: web.Request, grant: Grant) -> None:
        """Count a request for a ticket.

        Raises:
            LimitReachedError: The caller requests tickets too fast.
        """
        self._draw(self._tickets, request, grant, 1, "tickets")

    def subscribe(self, held: int) -> None:
        """Check that a feed may subscribe to one more session.

        Raises:
            LimitReachedError: The feed has as many subscriptions as allowed.
        """
        if self.subscriptions and held >= self.subscriptions:
            raise LimitReachedError(
                f"expected at most {self.subscriptions} subscriptions on one feed", retry_after=_HELD_RETRY
            )

    def _draw(self, rate: Rate, request: web.Request, grant: Grant, amount: int, what: str) -> None:
        if not rate.per_second:
            return
        caller = f"user {grant.user}" if grant.user else self._addresses.caller(request)
        if caller and (wait := rate.draw(caller, amount)):
            raise LimitReachedError(f"too many {what} a second came from one caller", retry_after=math.ceil(wait))
