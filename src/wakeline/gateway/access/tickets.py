"""Tickets: a token's grant for one request, for an EventSource or a WebSocket.

Those clients cannot send a header. A ticket grants as much as its token, but only once, so it may appear in a URL. It is
random and reveals nothing. Its grant is a record under the ticket's hash, which the gateways of one store share: the one that
removes the record has used the ticket. No two clocks are compared; `docs/decisions/0026` has the reasons.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from time import monotonic
from typing import Final

import msgspec

from wakeline.background import cancel_all
from wakeline.errors import (
    LimitReachedError,
    RecordConflictError,
    TokenExpiredError,
    TokenInvalidError,
    UnavailableError,
)
from wakeline.gateway.access.grants import Grant
from wakeline.gateway.access.keys import Keys
from wakeline.gateway.delivery import Topics
from wakeline.gateway.log import Records
from wakeline.gateway.runtime import supervised

TICKET_SECONDS: Final = 30
_PREFIX: Final = "tickets/"
_PER_USER: Final = 1_000
_AT_ALL: Final = 100_000


class _Granted(msgspec.Struct, omit_defaults=True):
    """A grant as a ticket's record has it; `key` names the key that signed the token."""

    user: str
    sessions: tuple[str, ...]
    allow: frozenset[str]
    topics: tuple[str, ...] | None = None
    expires: float | None = None
    cache: bool = False
    publishers: tuple[str, ...] = ()
    key: str | None = None
    inputs: tuple[tuple[str, tuple[str, ...]], ...] = ()
    roles: tuple[str, ...] = ()


_decoder = msgspec.json.Decoder(_Granted)


class Tickets:
    """Issues tickets, and accepts each once at any gateway that uses the same records.

    Args:
        records: Stores the grants.
        keys: The keys that signed the tokens; None if no token is required.
        clock: Returns the time in seconds.
    """

    def __init__(self, records: Records, keys: Keys | None, clock: Callable[[], float] = monotonic) -> None:
        self._records = records
        self._keys = keys
        self._clock = clock
        self._given: dict[str, tuple[float, str]] = {}  # by record: when it expires, and its user; in that order
        self._of: Counter[str] = Counter()
        self._expired: set[str] = set()  # records that are still to be removed
        self._seen: set[str] = set()  # the records of other gateways' tickets when they were last listed
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Return how many tickets of this gateway are unused, as far as it knows."""
        return len(self._given)

    async def start(self) -> None:
        """Remove the records of expired tickets in the background."""
        self._task = supervised("tickets", self._keep_removing)

    async def stop(self) -> None:
        """Stop removing records; other gateways remove those that are left."""
        await cancel_all(self._task)

    async def give(self, grant: Grant) -> str:
        """Issue a ticket for what `grant` allows, and for no longer.

        Raises:
            LimitReachedError: The user, or all users together, have too many unused tickets.
            UnavailableError: The record cannot be written.
        """
        self._expire()
        if self._of[grant.user] >= _PER_USER or len(self._given) >= _AT_ALL:
            raise LimitReachedError(
                "expected fewer unused tickets: use those issued before", retry_after=TICKET_SECONDS
            )
        ticket = secrets.token_urlsafe(32)
        key = _key(ticket)
        self._given[key] = (self._clock() + TICKET_SECONDS, grant.user)
        self._of[grant.user] += 1
        await self._records.put_record(key, self._encoded(grant), revision=0)
        return ticket

    async def use(self, ticket: str) -> Grant:
        """Return the grant of a ticket, which cannot be used again.

        Raises:
            TokenInvalidError: The ticket is unknown, used, or too old, or the key of its token was withdrawn.
            TokenExpiredError: The token that it was issued for has expired.
            UnavailableError: The store or the issuer's keys cannot be read.
        """
        self._expire()
        key = _key(ticket)
        record = await self._records.get_record(key)
        try:
            if record is None or key in self._expired:
                raise RecordConflictError("it was never issued, or its time is over")
            await self._records.delete_record(key, revision=record.revision)
        except RecordConflictError:  # of two uses at once, only one removes the record
            raise TokenInvalidError(
                f"expected an unused ticket that is at most {TICKET_SECONDS} s old",
                hint="Request another with POST /v1/tickets: each is valid for one request.",
            ) from None
        self._forget(key)
        grant = await self._decoded(record.value)
        if grant.seconds_left() == 0:
            raise TokenExpiredError("the token of this ticket has expired", hint="Request a ticket with a new token.")
        return grant

    def _encoded(self, grant: Grant) -> bytes:
        fields = msgspec.structs.asdict(grant)
        signer, topics = fields.pop("signer"), grant.topics and grant.topics.patterns
        key = self._keys and self._keys.name_of(signer)
        return msgspec.json.encode(_Granted(**{**fields, "topics": topics, "key": key}))

    async def _decoded(self, value: bytes) -> Grant:
        fields = msgspec.structs.asdict(_decoder.decode(value))
        key, topics = fields.pop("key"), fields["topics"]
        signer = await self._keys.signer_of(key) if self._keys is not None and key is not None else None
        return Grant(**{**fields, "topics": None if topics is None else Topics(topics), "signer": signer})

    async def _keep_removing(self) -> None:
        """Remove expired tickets every second, and leftovers of other gateways."""
        while True:
            for _ in range(TICKET_SECONDS):
                await asyncio.sleep(1)
                with suppress(UnavailableError):
                    await self._remove_expired()
            with suppress(UnavailableError):
                await self._find_leftovers()

    async def _remove_expired(self) -> None:
        self._expire()
        if self._expired:
            for record in (await self._records.get_records(keys := list(self._expired))).values():
                await self._records.remove(record)
            self._expired.difference_update(keys)

    async def _find_leftovers(self) -> None:
        """Find the tickets that were there `TICKET_SECONDS` ago.

        The gateway that issued them would have removed them, so it has ended.
        """
        there = {record.key for record in await self._records.records(_PREFIX)} - self._given.keys()
        self._expired |= there & self._seen
        self._seen = there

    def _expire(self) -> None:
        """Let this gateway's tickets expire whose time is over."""
        now = self._clock()
        while self._given:
            key = next(iter(self._given))
            if self._given[key][0] > now:
                return
            self._forget(key)
            self._expired.add(key)

    def _forget(self, key: str) -> None:
        _, user = self._given.pop(key, (0.0, None))
        if user is not None:
            self._of[user] -= 1
            if not self._of[user]:
                del self._of[user]


def _key(ticket: str) -> str:
    return _PREFIX + sha256(ticket.encode(errors="replace")).hexdigest()
