"""Ours and the official library on either side of the wire."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.contrib import workflow_streams as official
from temporalio.converter import PayloadCodec
from temporalio.worker import Replayer

from tests.temporal import streams_following_workflows as following
from tests.temporal import streams_workflows as hosts
from tests.temporal.streams_support import read, start, worker
from wakeline import streams

FAST = timedelta(milliseconds=20)
# A poll by update that waits when the run closes makes the SDK warn, with either host.
pytestmark = pytest.mark.filterwarnings("ignore::temporalio.workflow.UnfinishedUpdateHandlersWarning")

OURS, OFFICIAL = streams.WorkflowStreamClient, official.WorkflowStreamClient


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def queue(client: Client) -> AsyncIterator[str]:
    async with worker(client) as name:
        yield name


@pytest.mark.parametrize("host", [hosts.Hub, hosts.OfficialHub, hosts.HubWithoutQuery])
@pytest.mark.parametrize("publisher", [OURS, OFFICIAL])
@pytest.mark.parametrize("subscriber", [OURS, OFFICIAL])
async def test_every_pairing(client: Client, queue: str, host: Any, publisher: Any, subscriber: Any) -> None:
    handle = await start(client, queue, host)
    sender = publisher.create(client, handle.id, batch_interval=FAST)
    items = subscriber.create(client, handle.id).subscribe()
    async with sender:
        sender.topic("json").publish({"text": "é", "n": [1, None]})
        sender.topic("bytes").publish(b"\0\xff", force_flush=True)
        assert [item.data for item in await read(items, 2)] == [{"text": "é", "n": [1, None]}, b"\0\xff"]
        await handle.signal("say", args=["host", [True]])
        assert [item.data for item in await read(items, 1)] == [True]
        for number in range(500):
            sender.topic("n").publish(number)
    rest = await read(items, 500)
    assert [item.data for item in rest] == list(range(500))
    assert [item.offset for item in rest] == list(range(3, 503))
    if host is hosts.HubWithoutQuery and subscriber is OFFICIAL:
        # It raises where the run closes and does not answer the query.
        await handle.terminate()
        return
    await handle.signal("close")
    assert await read(items) == []
    # Without the query, nothing can be read from a run that has closed.
    late = [] if host is hosts.HubWithoutQuery else [2]
    assert [item.offset for item in await read(subscriber.create(client, handle.id).subscribe("host"))] == late


async def test_the_official_client_follows_our_continue_as_new(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Roller, hosts.RollerInput(runs_left=3))
    items = await read(OFFICIAL.create(client, handle.id).subscribe())
    assert [item.offset for item in items] == list(range(9))


async def test_we_follow_the_official_continue_as_new(client: Client, queue: str) -> None:
    handle = await start(client, queue, following.OfficialRoller, following.OfficialRollerInput(runs_left=3))
    items = await read(OURS.create(client, handle.id).subscribe())
    assert [item.offset for item in items] == list(range(9))


async def test_an_open_run_moves_over_from_the_official_library(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.OfficialHub)
    sender = OFFICIAL.create(client, handle.id, batch_interval=FAST)
    items = OFFICIAL.create(client, handle.id).subscribe()
    async with sender:
        for number in range(3):
            sender.topic("n").publish(number, force_flush=True)
            assert [item.data for item in await read(items, 1)] == [number]
    history = await handle.fetch_history()
    await handle.terminate()
    replayed = await Replayer(workflows=[hosts.MovedHub]).replay_workflow(history, raise_on_replay_failure=False)
    assert replayed.replay_failure is None


class Backwards(PayloadCodec):
    """Stands for encryption: what it made, nothing else can read, and making it twice shows."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload(metadata={"encoding": b"backwards"}, data=p.SerializeToString()[::-1]) for p in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        assert all(payload.metadata["encoding"] == b"backwards" for payload in payloads)
        return [Payload.FromString(payload.data[::-1]) for payload in payloads]


@pytest.mark.parametrize(("publisher", "subscriber"), [(OURS, OURS), (OURS, OFFICIAL), (OFFICIAL, OURS)])
async def test_a_codec_runs_once_on_the_envelope(client: Client, publisher: Any, subscriber: Any) -> None:
    converter = dataclasses.replace(client.data_converter, payload_codec=Backwards())
    coded = Client(client.service_client, namespace=client.namespace, data_converter=converter)
    async with worker(coded) as queue:
        handle = await start(coded, queue, hosts.Hub)
        async with publisher.create(coded, handle.id, batch_interval=FAST) as sender:
            sender.topic("n").publish({"secret": 1})
        items = subscriber.create(coded, handle.id).subscribe(result_type=RawValue)
        (item,) = await read(items, 1)
        assert item.data.payload.metadata["encoding"] == b"json/plain"
        await items.aclose()
        await handle.terminate()


async def test_the_official_client_learns_of_a_truncation(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Hub)
    await handle.signal("say", args=["n", list(range(5))])
    await handle.execute_update("truncate", 3)
    items = await read(OFFICIAL.create(client, handle.id).subscribe(from_offset=1), 2)
    assert [item.offset for item in items] == [3, 4]
    await handle.terminate()
