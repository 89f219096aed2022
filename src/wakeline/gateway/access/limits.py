"""How much one caller may take: connections that are held, events and tickets a second.

Each is counted for the token's user, and connections for the caller's address, too. Calls from this machine itself are not
counted by address: they are a proxy's, or a test's. So nothing is limited where nobody is asked who they are, for there the
gateway listens on loopback only.
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
    """A rate for each of many callers, as a bucket that fills steadily and is drawn from.

    One that is not empty may be overdrawn: a batch larger than the bucket passes, and is paid for by a wait.

    Args:
        per_second: How fast a bucket fills; 0 for no limit. It holds what comes in five seconds.
        clock: Tells the time in seconds.
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._full_at: dict[str, float] = {}  # by caller: when its bucket will be full; who is not here has a full one

    def __len__(self) -> int:
        """How many callers are remembered."""
        return len(self._full_at)

    def draw(self, caller: str, amount: float) -> float:
        """Take `amount`; gives the seconds to wait first, in which case nothing was taken.

        That is 0 for a caller whose bucket is not empty.
        """
        if not self._per_second:
            return 0
        now = self._clock()
        full_at = max(now, self._full_at.get(caller, now))
        if (wait := full_at - now - _BURST_SECONDS) >= 0:
            return max(wait, 1 / self._per_second)
        if caller not in self._full_at and len(self._full_at) >= _KEPT:
            self._forget(now)
        self._full_at[caller] = full_at + amount / self._per_second
        return 0

    def _forget(self, now: float) -> None:
        """Forget full buckets, and if all are in use, the fullest half: memory is bounded, whoever calls."""
        kept = sorted((full, caller) for caller, full in self._full_at.items() if full > now)
        self._full_at = {caller: full for full, caller in kept[-_KEPT // 2 :]}


class _Count(Counter[str]):
    """How many connections each user, or each address, holds.

    Args:
        what: `user` or `address`.
        most: How many each may; 0 for no limit.
    """

    def __init__(self, what: str, most: int) -> None:
        super().__init__()
        self.what, self.most = what, most


class Held:
    """Counts one connection in each of some counts, for as long as a block lasts.

    It is no generator, because every stream holds one, and a frame would take a kilobyte.
    """

    __slots__ = ("_counted",)

    def __init__(self, *counted: tuple[_Count, str | None]) -> None:
        self._counted = [(count, caller) for count, caller in counted if caller and count.most]

    def __enter__(self) -> None:
        """Count it.

        Raises:
            LimitReachedError: There are as many as may be; nothing was counted.
        """
        for count, caller in self._counted:
            if count[caller] >= count.most:
                message = f"expected at most {count.most} connections of one {count.what}"
                raise LimitReachedError(message, retry_after=_HELD_RETRY)
        for count, caller in self._counted:
            count[caller] += 1

    def __exit__(self, *_: object) -> None:
        """Count it no longer; who holds none takes no memory."""
        for count, caller in self._counted:
            count[caller] -= 1
            if not count[caller]:
                del count[caller]


class Limits:
    """What is counted of each caller.

    Args:
        settings: The limits; each is off at 0.
        addresses: Tells whom a request is counted for.

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
        """Hold a connection (a stream, a feed, a long-poll) for as long as a block lasts.

        Raises:
            LimitReachedError: On entering: the address or the user holds as many as may be.
        """
        return Held((self._callers, self._addresses.caller(request)), (self._users, grant.user))

    def address(self, request: web.Request) -> Held:
        """The address's half of `connection`, for who has yet to say who it is."""
        return Held((self._callers, self._addresses.caller(request)))

    def user(self, grant: Grant) -> Held:
        """The user's half of `connection`."""
        return Held((self._users, grant.user))

    def publish(self, request: web.Request, grant: Grant, events: int) -> None:
        """Count events that are to be published.

        Raises:
            LimitReachedError: Events have come too fast; these may be sent again after `Retry-After`.
        """
        self._draw(self._published, request, grant, events, "events")

    def ticket(self, request: web.Request, grant: Grant) -> None:
        """Count a ticket that is asked for.

        Raises:
            LimitReachedError: Tickets were asked for too fast.
        """
        self._draw(self._tickets, request, grant, 1, "tickets")

    def subscribe(self, held: int) -> None:
        """See that a feed may take one more session.

        Raises:
            LimitReachedError: It has as many as may be.
        """
        if self.subscriptions and held >= self.subscriptions:
            raise LimitReachedError(
                f"expected at most {self.subscriptions} subscriptions on one feed", retry_after=_HELD_RETRY
            )

    def _draw(self, rate: Rate, request: web.Request, grant: Grant, amount: int, what: str) -> None:
        caller = f"user {grant.user}" if grant.user else self._addresses.caller(request)
        if caller and (wait := rate.draw(caller, amount)):
            raise LimitReachedError(f"too many {what} a second came from one caller", retry_after=math.ceil(wait))
