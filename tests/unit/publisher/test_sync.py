"""Without asyncio: the same, from any thread."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta
from typing import Any

import pytest

from tests.support import Served
from tests.unit.conftest import on_disk
from tests.unit.publisher.scripted import ScriptedGateway, error
from wakeline.errors import AttemptFencedError, UnavailableError
from wakeline.publisher import PublishDroppedError, PublisherMisusedError, SyncSessionPublisher


async def events(served: Served) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query = "limit=10000"
    while True:
        _, page = await served.call("GET", f"/v1/sessions/s/events?{query}")
        found += page["events"]
        if page["up_to_date"]:
            return found
        query = f"limit=10000&from={page['cursor']}"


@on_disk
async def test_everything_is_in_the_log_in_each_thread_s_order(served: Served) -> None:
    def work() -> None:
        with SyncSessionPublisher(served.url, session="s", max_buffer=100) as session:
            topic = session.topic("t")

            def publish(thread: int) -> None:
                for n in range(1000):
                    topic.publish({"thread": thread, "n": n})

            threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            session.flush()
            assert (session.acknowledged, session.resumed, topic.name) == (4000, 0, "t")
            message = session.topic("answer", append="text").message("m1")
            message.append("Hel")
            message.append("lo")
            message.complete()
            session.topic("cell", type=int, keyed=True).publish(7, key="A1")
            assert message.id == "m1"

    await asyncio.wait_for(asyncio.to_thread(work), 60)
    found = await events(served)
    for thread in range(4):
        mine = [e["data"]["n"] for e in found if e["topic"] == "t" and e["data"]["thread"] == thread]
        assert mine == list(range(1000))
    assert [(e["topic"], e["data"]) for e in found[4000:]] == [
        ("answer", "Hel"),
        ("answer", "lo"),
        ("answer", None),
        ("cell", 7),
    ]


async def test_a_zombie_s_thread_is_told(script: ScriptedGateway) -> None:
    def work() -> None:
        with SyncSessionPublisher(script.url, session="s", publisher="p") as session:
            script.script = lambda frame: [error(frame["channel"], "attempt_fenced", attempt=2)]
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                session.topic("t").publish("stale")
                time.sleep(0.001)

    with pytest.raises(AttemptFencedError):
        await asyncio.to_thread(work)


async def test_what_could_not_be_delivered_is_told(away: ScriptedGateway) -> None:
    def work() -> None:
        wait = timedelta(seconds=0.2)
        with SyncSessionPublisher(away.url, session="s", max_retry_duration=wait) as session:
            session.topic("t").publish(1)
            session.close()

    with pytest.raises(UnavailableError) as caught:
        await asyncio.to_thread(work)
    assert isinstance(caught.value, PublishDroppedError)
    assert [event.data for event in caught.value.events] == [1]


async def test_it_must_be_open_and_only_activities_heartbeat(served: Served) -> None:
    def work() -> None:
        session = SyncSessionPublisher(served.url, session="s")
        with pytest.raises(PublisherMisusedError, match="open publisher"):
            session.topic("t").publish(1)
        with session, pytest.raises(PublisherMisusedError, match="from_within_activity"):
            session.heartbeat_every(timedelta(seconds=1))

    await asyncio.to_thread(work)
