"""The streams of a store as their leaders describe them, for people who run the servers.

A survey reads only, and needs no stream but that of the records: it is for stores of which a part does not answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from wakeline.errors import StorageFailedError
from wakeline.gateway.log.engines.nats.link import Link, RefusedError
from wakeline.gateway.log.engines.nats.records import RecordStore
from wakeline.gateway.log.engines.nats.streams import Cluster, Stream, StreamInfo, Streams
from wakeline.gateway.log.engines.nats.target import Target

_NOT_FOUND: Final = 10059


class StreamState(msgspec.Struct, frozen=True):
    """A stream as its leader describes it.

    Attributes:
        name: Its name.
        problem: Why there is no more to say of it; empty if it answers.
        leader: The server that leads it.
        replicas: The number of its replicas.
        current: How many of them have all of its messages, the leader included.
        messages: The number of its messages.
        bytes: Their size.
    """

    name: str
    problem: str = ""
    leader: str = ""
    replicas: int = 0
    current: int = 0
    messages: int = 0
    bytes: int = 0


async def survey_streams(address: str) -> list[StreamState]:
    """Return the state of each stream of a store.

    Raises:
        EngineRefusedError: No server can be reached, or none that fits.
    """
    target = Target.parse(address)
    streams = Streams(target)
    async with _connected(target) as link:
        return list(await asyncio.gather(*(_state(link, stream) for stream in (streams.records, *streams.shards))))


@asynccontextmanager
async def records_of(address: str) -> AsyncIterator[RecordStore]:
    """Open the records of a store, whether its other streams answer or not.

    Raises:
        EngineRefusedError: They cannot be read.
    """
    target = Target.parse(address)
    async with _connected(target) as link:
        records = RecordStore(link, Streams(target).records)
        state = await _state(link, Streams(target).records)
        try:
            if state.problem:
                raise target.unfit(
                    f"stream {state.name}, which has the leases of the gateways: {state.problem}",
                    "Start its nodes, or a first gateway, or correct the engine's address.",
                )
            await records.tail.start()
            yield records
        finally:
            await records.tail.stop()


@asynccontextmanager
async def _connected(target: Target) -> AsyncIterator[Link]:
    link = Link(target)
    await link.open()
    try:
        yield link
    finally:
        await link.close()


async def _state(link: Link, stream: Stream) -> StreamState:
    try:
        info = await StreamInfo.of(link, stream)
    except RefusedError as error:
        missing = error.failure.err_code == _NOT_FOUND
        return StreamState(stream.name, "it is not there" if missing else f"it answers: {error}")
    except (StorageFailedError, msgspec.MsgspecError):
        return StreamState(stream.name, "it does not answer")
    cluster = info.cluster or Cluster(leader=link.server_name)
    if not cluster.leader:
        return StreamState(stream.name, "it has no leader")
    return StreamState(
        stream.name,
        leader=cluster.leader,
        replicas=info.config.num_replicas,
        current=1 + sum(replica.current for replica in cluster.replicas),
        messages=info.state.messages,
        bytes=info.state.bytes,
    )
