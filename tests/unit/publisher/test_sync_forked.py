"""A `def` activity may run in a process that was forked from one that publishes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import Served
from tests.unit.publisher.scripted import ScriptedGateway
from wakeline.client import SyncSessionClient
from wakeline.publisher import PublisherMisusedError, SyncSessionPublisher
from wakeline.publisher import publisher as publishing
from wakeline.publisher.frames import Identity
from wakeline.publisher.spool import Spool


def publish(url: str, data: str) -> None:
    with SyncSessionPublisher(url, session="s") as session:
        session.topic("t").publish(data)


def forked(in_child: Callable[[], None]) -> int | None:
    def through() -> None:
        in_child()
        os._exit(0)  # without the end of the test's own threads, which the child does not have

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking where there are threads
        child = multiprocessing.get_context("fork").Process(target=through)
        child.start()
    child.join(60)
    if child.is_alive():
        child.kill()
        child.join()
    return child.exitcode


async def test_a_child_publishes_by_a_thread_of_its_own(script: ScriptedGateway) -> None:
    def parent() -> int | None:
        publish(script.url, "parent")
        return forked(lambda: publish(script.url, "child"))

    assert await asyncio.to_thread(parent) == 0
    assert script.events() == ["parent", "child"]


async def test_a_child_waits_for_no_lock_that_its_parent_held(script: ScriptedGateway, tmp_path: Path) -> None:
    file = tmp_path / "spool.db"
    spool = Spool.at(file)
    spool.add(Identity(session="a", publisher="p"), 0, [b'{"topic":"t","data":0}'])

    def in_child() -> None:
        Spool.at(file).add(Identity(session="b", publisher="p"), 0, [b'{"topic":"t","data":0}'])
        publish(script.url, "child")

    def parent() -> int | None:
        with spool._lock, Spool._knowing, publishing._places._lock:
            return forked(in_child)

    assert await asyncio.to_thread(parent) == 0
    assert spool.waiting() == 2
    assert script.events() == ["child"]


async def test_a_publisher_that_was_open_says_that_it_is_the_parent_s(script: ScriptedGateway) -> None:
    def parent() -> int | None:
        with SyncSessionPublisher(script.url, session="s") as session:
            topic = session.topic("t")

            def in_child() -> None:
                with pytest.raises(PublisherMisusedError, match="opened before the fork"):
                    topic.publish("child")
                with pytest.raises(PublisherMisusedError, match="opened before the fork"):
                    session.flush()
                session.close()

            exit_code = forked(in_child)
            topic.publish("parent")
        return exit_code

    assert await asyncio.to_thread(parent) == 0
    assert script.events() == ["parent"]


async def test_a_client_that_was_made_before_says_so(served: Served) -> None:
    def parent() -> int | None:
        with SyncSessionClient(served.url) as client:
            client.session("s").publish("t", "parent")

            def in_child() -> None:
                with pytest.raises(RuntimeError, match="made before the process was forked"):
                    client.session("s").state()
                client.close()

            exit_code = forked(in_child)
            client.session("s").publish("t", "parent")
        return exit_code

    assert await asyncio.to_thread(parent) == 0
