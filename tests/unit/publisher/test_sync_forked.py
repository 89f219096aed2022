"""A `def` activity may run in a process that was forked from one that publishes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import warnings

from tests.unit.publisher.scripted import ScriptedGateway
from wakeline.publisher import SyncSessionPublisher


def publish(url: str, data: str) -> None:
    with SyncSessionPublisher(url, session="s") as session:
        session.topic("t").publish(data)


def in_child(url: str) -> None:
    publish(url, "child")
    os._exit(0)  # without the end of the test's own threads, which the child does not have


def forked(url: str) -> int | None:
    publish(url, "parent")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking where there are threads
        child = multiprocessing.get_context("fork").Process(target=in_child, args=(url,))
        child.start()
    child.join(10)
    if child.is_alive():
        child.kill()
        child.join()
    return child.exitcode


async def test_a_child_publishes_by_a_thread_of_its_own(script: ScriptedGateway) -> None:
    assert await asyncio.to_thread(forked, script.url) == 0
    assert script.events() == ["parent", "child"]
