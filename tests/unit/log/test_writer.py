"""SQLite's writer: which operations share a commit, and who waits for whom."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from wakeline.errors import StorageFailedError
from wakeline.events import compose, timestamp
from wakeline.gateway.log import Append
from wakeline.gateway.log.counts import Counts
from wakeline.gateway.log.engines.sqlite.schema import connect_writer
from wakeline.gateway.log.engines.sqlite.upkeep import DATABASE, Upkeep
from wakeline.gateway.log.engines.sqlite.writer import Writer
from wakeline.gateway.log.feed import Commit

FOR_EVER = 3600.0


class Commits:
    """A writer, and the number of events of each of its commits."""

    def __init__(self, writer: Writer, sizes: list[int]) -> None:
        self.writer = writer
        self.sizes = sizes
        self._appended = 0

    def append(self) -> asyncio.Future[object]:
        """Append an event to a session of its own."""
        self._appended += 1
        append = Append(f"s{self._appended}", (compose("t", b"1", time=timestamp()),))
        return self.writer.submit(lambda _, appends: appends.append(append))

    async def crowd(self, size: int) -> None:
        """Have as many operations share a commit: they are submitted during another one."""
        began, submitted = threading.Event(), threading.Event()

        def hold(*_: object) -> None:
            began.set()
            submitted.wait(60)

        held = self.writer.submit(hold)
        await asyncio.to_thread(began.wait, 60)
        together = [self.append() for _ in range(size)]
        submitted.set()
        await asyncio.wait_for(asyncio.gather(held, *together), 60)
        assert self.sizes[-1] == size


@asynccontextmanager
async def writing(directory: Path, *, gather: float) -> AsyncIterator[Commits]:
    sizes: list[int] = []

    def notify(commits: Sequence[Commit]) -> None:
        sizes.append(sum(len(commit.events) for commit in commits))

    def lost(error: Exception) -> None:
        raise AssertionError from error

    connect = partial(connect_writer, directory / DATABASE)
    upkeep = Upkeep(directory)
    writer = Writer(connect, upkeep, notify, lost, Counts(), gather=gather)
    writer.start()
    try:
        yield Commits(writer, sizes)
    finally:
        await asyncio.wait_for(writer.stop(), 60)
        upkeep.close()


async def test_a_lone_publisher_waits_for_nobody(tmp_path: Path) -> None:
    async with writing(tmp_path, gather=FOR_EVER) as commits:
        for _ in range(20):
            await asyncio.wait_for(commits.append(), 60)
        assert commits.sizes == [1] * 20


async def test_a_commit_waits_for_as_many_as_the_last_ones_had(tmp_path: Path) -> None:
    async with writing(tmp_path, gather=FOR_EVER) as commits:
        await commits.crowd(5)
        early = [commits.append() for _ in range(4)]
        done, _ = await asyncio.wait(early, timeout=0.2)
        assert not done
        await asyncio.wait_for(asyncio.gather(*early, commits.append()), 60)
        assert commits.sizes[-1] == 5


async def test_publishers_that_wait_for_each_acknowledgement_wait_only_for_one_another(tmp_path: Path) -> None:
    async with writing(tmp_path, gather=FOR_EVER) as commits:
        published = [0] * 7

        async def publish(number: int) -> None:
            while min(published) < 20:
                await commits.append()
                published[number] += 1

        publishing = [asyncio.create_task(publish(number)) for number in range(7)]
        done, others = await asyncio.wait(publishing, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        for task in others:  # nobody is left to wait for
            task.cancel()
        assert done
        assert min(published) == 20


async def test_a_crowd_that_has_gone_is_not_waited_for_longer_than_allowed(tmp_path: Path) -> None:
    async with writing(tmp_path, gather=0.01) as commits:
        await commits.crowd(50)
        for _ in range(20):
            await asyncio.wait_for(commits.append(), 60)
        assert commits.sizes[-20:] == [1] * 20


async def test_a_writer_that_stops_commits_what_waits_for_others(tmp_path: Path) -> None:
    async with writing(tmp_path, gather=FOR_EVER) as commits:
        await commits.crowd(5)
        waiting = commits.append()
    assert waiting.done()
    assert commits.sizes[-1] == 1
    with pytest.raises(StorageFailedError, match="it is closing"):
        commits.append()
