"""The client without asyncio: from any thread, interrupted at any time, with nothing left behind."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.support import Served
from tests.unit.conftest import on_disk
from wakeline import blocking as waiting
from wakeline.client import (
    EventAdded,
    EventDataError,
    EventStream,
    LiveView,
    Session,
    SessionClient,
    SyncEventStream,
    SyncLiveView,
    SyncSession,
    SyncSessionClient,
)
from wakeline.errors import SessionNotFoundError

T = TypeVar("T")


async def in_thread(work: Callable[[SyncSessionClient], T], url: str) -> T:
    """Do something with a client in another thread: the gateway is in this one's loop."""

    def do() -> T:
        with SyncSessionClient(url) as client:
            return work(client)

    return await asyncio.to_thread(do)


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("wakeline-client")]


@pytest.mark.parametrize(
    ("plain", "asynchronous"),
    [
        (SyncSessionClient, SessionClient),
        (SyncSession, Session),
        (SyncEventStream, EventStream),
        (SyncLiveView, LiveView),
    ],
)
def test_it_has_the_same_names(plain: type[Any], asynchronous: type[Any]) -> None:
    other = {"aclose": "close", "drop": None, "wait": None, "take": None, "waiting": None}
    names = {name for name in dir(asynchronous) if not name.startswith("_")}
    assert {name for name in dir(plain) if not name.startswith("_")} == {other.get(n, n) for n in names} - {None}
    for name in set(names) & set(dir(plain)) - {"events", "view", "page", "publish", "publish_many", "send", "answer"}:
        member = getattr(asynchronous, name)
        if inspect.isfunction(member):
            assert [*inspect.signature(member).parameters] == [*inspect.signature(getattr(plain, name)).parameters]


@on_disk
async def test_everything_that_is_published_is_read(served: Served) -> None:
    def work(client: SyncSessionClient) -> None:
        session = client.session("s")
        with pytest.raises(SessionNotFoundError):
            session.state()
        session.publish("t", 0)
        session.publish_many([("t", n) for n in range(1, 2000)], publisher="p", sequence=0)
        with session.events(type=int) as events:
            assert [next(events).data for _ in range(2000)] == list(range(2000))
        assert [e.data for e in session.page(before="now", limit=2).events] == [1998, 1999]
        with session.events(type=str) as events, pytest.raises(EventDataError):
            next(events)
        device = session.acknowledge(session.page(limit=2).cursor, device="phone")
        assert (device.lag, [d.device for d in session.devices()]) == (1998, ["phone"])
        session.forget_device("phone")
        assert ([s.session for s in client.sessions()], session.state().next_offset) == (["s"], 2000)

    await in_thread(work, served.url)
    assert threads() == []


async def test_a_loop_that_is_left_early_gives_its_connection_back(served: Served) -> None:
    await served.publish("s", {"topic": "t"})

    def work(client: SyncSessionClient) -> None:
        for _ in client.session("s").events():
            break
        while client.session("s").state().devices:
            time.sleep(0.01)

    await asyncio.wait_for(in_thread(work, served.url), 60)


async def test_the_rest_of_a_session_s_life(served: Served, tmp_path: Path) -> None:
    def work(client: SyncSessionClient) -> None:
        session = client.session("s")
        session.create()
        session.publish("t", 1)
        session.close()
        assert [event.topic for event in session.events()] == ["t", "$session.closed"]
        assert session.export(tmp_path / "s.ndjson") == 2
        session.delete()
        assert session.import_(tmp_path / "s.ndjson").closed

    await in_thread(work, served.url)


@on_disk
async def test_many_threads_share_one_client(served: Served) -> None:
    def work(client: SyncSessionClient) -> list[list[int]]:
        client.session("s").publish("t", 0)

        def read() -> list[int]:
            with client.session("s").events() as events:
                return [next(events).offset for _ in range(41)]

        def publish() -> None:
            for _ in range(10):
                client.session("s").publish("t")

        with ThreadPoolExecutor(8) as pool:
            reading = [pool.submit(read) for _ in range(4)]
            for publishing in [pool.submit(publish) for _ in range(4)]:
                publishing.result(60)
            return [r.result(60) for r in reading]

    assert await in_thread(work, served.url) == [list(range(41))] * 4


async def test_close_ends_the_readings_of_other_threads(served: Served) -> None:
    await served.publish("s", {"topic": "t"})

    def work() -> str:
        client = SyncSessionClient(served.url)
        told: list[str] = []

        def read() -> None:
            try:
                for _ in client.session("s").events():
                    pass
            except RuntimeError as error:
                told.append(str(error))

        reader = threading.Thread(target=read)
        reader.start()
        time.sleep(0.3)
        client.close()
        client.close()
        reader.join(60)
        with pytest.raises(RuntimeError, match="expected an open client"):
            client.session("s").state()
        return told[0]

    assert (await asyncio.to_thread(work)).startswith("expected an open client")
    assert threads() == []


async def test_a_callback_cannot_wait_for_its_own_client(served: Served) -> None:
    def work() -> None:
        def token() -> str:
            client.session("s").state()
            return ""

        with (
            SyncSessionClient(served.url, token) as client,
            pytest.raises(RuntimeError, match="which would wait for itself"),
        ):
            client.session("s").state()

    await asyncio.to_thread(work)


_PROGRAM = """
import sys, threading
from wakeline import SyncSessionClient
try:
    with SyncSessionClient(sys.argv[1]) as client:
        for event in client.session("s").events():
            print(event.data, flush=True)
except KeyboardInterrupt:
    print([thread.name for thread in threading.enumerate()])
"""


async def test_ctrl_c_ends_it_at_once(served: Served) -> None:
    await served.publish("s", {"topic": "t", "data": "hello"})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PROGRAM, served.url),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 60) == b"hello\n"
    process.send_signal(signal.SIGINT)
    assert (await asyncio.wait_for(process.stdout.read(), 60)).decode().strip() == "['MainThread']"
    assert await process.wait() == 0


async def test_one_that_another_thread_closes_just_when_an_event_has_come_ends(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await served.publish("s", {"topic": "t"})

    def work(client: SyncSessionClient) -> list[int]:
        events = client.session("s").events()
        take = events._stream.take

        def closed_meanwhile() -> Any:
            events.close()
            return take()

        monkeypatch.setattr(events._stream, "take", closed_meanwhile)
        return [event.offset for event in events]

    assert await in_thread(work, served.url) == []


async def test_a_change_that_comes_just_when_its_wait_is_interrupted_is_there_the_next_time(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        await served.publish("s", {"topic": "t", "data": n})
    wait = waiting._wait

    def interrupted(ended: Any) -> Any:
        wait(ended)
        raise KeyboardInterrupt

    def work(client: SyncSessionClient) -> None:
        with client.session("s").view() as view:
            for n in range(3):
                with monkeypatch.context() as patched:
                    patched.setattr(waiting, "_wait", interrupted)
                    with pytest.raises(KeyboardInterrupt):
                        next(view)
                change = next(view)
                assert isinstance(change, EventAdded)
                assert change.event.data == n

    await in_thread(work, served.url)
