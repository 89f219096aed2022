"""Reports how gateways have divided the shards of their store, for people who run them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import msgspec

from wakeline.gateway.log import Record
from wakeline.gateway.ownership.ownership import GATEWAY, LEAVING, SHARD, SHARDS

FREE: Final = ""
"""The gateway of shards that none has."""


class Share(msgspec.Struct, frozen=True):
    """A gateway and its shards.

    Attributes:
        gateway: Its name; `FREE` for the shards without a gateway.
        state: Whether it renews its lease, is about to stop, or has not renewed its lease during the survey.
        shards: Their numbers.
        place: Its host, port and process; empty if it has not said.
    """

    gateway: str
    state: Literal["running", "leaving", "silent", "free"]
    shards: tuple[int, ...]
    place: str = ""


async def survey(records: Callable[[str], Awaitable[list[Record]]], seconds: float) -> list[Share]:
    """Return the shares of all gateways that have a lease, and the shards without a gateway.

    Args:
        records: Reads the records of a prefix from the store.
        seconds: How long to watch; a running gateway renews its lease every `lease / 4` seconds.
    """
    before = await records(GATEWAY)
    await asyncio.sleep(seconds)
    after = {record.key: record for record in await records("leases/")}
    of = defaultdict[str, list[int]](list)
    for number in range(SHARDS):
        lease = after.get(f"{SHARD}{number}")
        of[FREE if lease is None else lease.value.decode()].append(number)
    shares = []
    for key, lease in after.items():
        if key.startswith(GATEWAY):
            name = key.removeprefix(GATEWAY)
            leaving = lease.value.startswith(LEAVING)
            state: Literal["running", "leaving", "silent"] = "leaving" if leaving else "running"
            place = lease.value.removeprefix(LEAVING).decode()
            shares.append(Share(name, "silent" if lease in before else state, tuple(of.pop(name, ())), place))
    return [*shares, *(Share(name, "free" if name == FREE else "silent", tuple(some)) for name, some in of.items())]
