"""The push subscriptions of devices: one record for each user, and for each endpoint.

The endpoint's record names the user who registered it last. A browser keeps its subscription when another person logs in, and
must not show the notifications of the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Final, Literal, TypeAlias

import msgspec

from wakeline.errors import RecordConflictError
from wakeline.gateway.log import Records
from wakeline.gateway.notifications.channels.channel import Outcome, Subscription

MOST_SUBSCRIPTIONS: Final = 20
"""Subscriptions of one user; one more replaces the one that was registered longest ago."""

FAILING: Final = 5 * 86_400.0
"""Seconds of failures without an accepted push after which a subscription is removed."""

Removal: TypeAlias = Literal["gone", "failing"]

_USERS: Final = "notifications/push/"
_ENDPOINTS: Final = "notifications/endpoint/"
_Change: TypeAlias = Callable[[list[Subscription]], list[Subscription]]
_decoder = msgspec.json.Decoder(list[Subscription])


class Subscriptions:
    """Reads and writes the subscriptions of users.

    Args:
        records: Stores them.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    async def of(self, user: str) -> list[Subscription]:
        """Return a user's subscriptions, in the order in which they were registered."""
        record = await self._records.get_record(_USERS + user)
        found = [] if record is None else _decoder.decode(record.value)
        owners = await self._records.get_records([_owner_key(one.endpoint) for one in found])
        mine = {key for key, owner in owners.items() if owner.value == user.encode()}
        return [one for one in found if _owner_key(one.endpoint) in mine]

    async def put(self, user: str, subscription: Subscription) -> None:
        """Register a device's subscription, in place of its earlier one; return when it is durable.

        Raises:
            UnavailableError: It may not be stored: register it again.
        """
        await self._own(user, subscription.endpoint)

        def change(found: list[Subscription]) -> list[Subscription]:
            device, endpoint = subscription.device, subscription.endpoint
            others = [one for one in found if one.device != device and one.endpoint != endpoint]
            return [*others, subscription][-MOST_SUBSCRIPTIONS:]

        await self._change(user, change)

    async def remove(self, user: str, device: str) -> None:
        """Remove a device's subscription, if it has one; return when that is durable.

        Raises:
            UnavailableError: It may not be removed: remove it again.
        """
        await self._change(user, lambda found: [one for one in found if one.device != device])

    async def note(self, user: str, outcomes: Sequence[tuple[Subscription, Outcome]], now: float) -> list[Removal]:
        """Note the outcomes of pushes; return why subscriptions were removed.

        Raises:
            UnavailableError: They may not be stored.
        """
        by_endpoint = {subscription.endpoint: outcome for subscription, outcome in outcomes}
        removals: list[Removal] = []

        def change(found: list[Subscription]) -> list[Subscription]:
            removals.clear()
            kept: list[Subscription] = []
            for one in found:
                after = _after(one, by_endpoint.get(one.endpoint), now)
                if isinstance(after, Subscription):
                    kept.append(after)
                else:
                    removals.append(after)
            return kept

        await self._change(user, change)
        return removals

    async def _change(self, user: str, change: _Change) -> None:
        while True:
            record = await self._records.get_record(_USERS + user)
            before = [] if record is None else _decoder.decode(record.value)
            after = change(before)
            if after == before:
                return
            value = msgspec.json.encode(after) if after else None
            revision = 0 if record is None else record.revision
            kept = {one.endpoint for one in after}
            lost = [one.endpoint for one in before if one.endpoint not in kept]
            with suppress(RecordConflictError):
                await self._records.change_record(_USERS + user, value, revision=revision, erase=bool(lost))
                await self._disown(user, lost)
                return

    async def _own(self, user: str, endpoint: str) -> None:
        while True:
            record = await self._records.get_record(_owner_key(endpoint))
            if record is not None and record.value == user.encode():
                return
            with suppress(RecordConflictError):
                revision = 0 if record is None else record.revision
                await self._records.put_record(_owner_key(endpoint), user.encode(), revision=revision)
                return

    async def _disown(self, user: str, endpoints: Iterable[str]) -> None:
        for endpoint in endpoints:
            record = await self._records.get_record(_owner_key(endpoint))
            if record is not None and record.value == user.encode():
                with suppress(RecordConflictError):  # another user has registered it meanwhile
                    await self._records.delete_record(record.key, revision=record.revision, erase=True)


def short_name(device: str) -> str:
    """Return a name of fixed length for a device, by which a message notes that it was reached."""
    return sha256(device.encode()).hexdigest()[:8]


def _after(one: Subscription, outcome: Outcome | None, now: float) -> Subscription | Removal:
    """Return a subscription after a push, or why it is removed."""
    if outcome is None or outcome.verdict == "refused":
        return one
    if outcome.verdict == "gone":
        return "gone"
    if outcome.verdict == "delivered":
        return msgspec.structs.replace(one, failing=None)
    failing = now if one.failing is None else one.failing
    return "failing" if now - failing >= FAILING else msgspec.structs.replace(one, failing=failing)


def _owner_key(endpoint: str) -> str:
    return _ENDPOINTS + sha256(endpoint.encode()).hexdigest()[:32]
