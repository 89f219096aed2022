"""Several publishers meet in one spool: none is told as its own what happens to another's, and none doubles or loses anything."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.publisher.scripted import RIGHTLY, Answer, Frame, ScriptedGateway, error
from wakeline.errors import EventTooLargeError
from wakeline.publisher import PublishDroppedError, SessionPublisher
from wakeline.publisher.spool import Spool


def spooling(gateway: ScriptedGateway, file: Path, session: str = "s", **options: object) -> SessionPublisher:
    return SessionPublisher(gateway.url, session=session, on_unavailable="spool", spool=file, **options)  # type: ignore[arg-type] # tests know


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


async def test_after_a_refusal_the_spool_does_not_begin_to_count_anew(script: ScriptedGateway, file: Path) -> None:
    dropped: list[PublishDroppedError] = []
    async with spooling(script, file, on_dropped=dropped.append) as session:
        topic = session.topic("t")
        for n in range(3):
            await topic.publish(n)
        await session.flush()
        await script.stop()
        await topic.publish("refused")
        await session.flush()
        cut = False

        def refuse(frame: Frame) -> Answer:
            nonlocal cut
            if frame["type"] == "append" and frame["events"][0]["data"] == "refused":
                cut = True
                return [error(frame["channel"], "event_too_large")]
            if cut and frame["type"] == "open":
                return None  # it ends before it says where the attempt stands
            return RIGHTLY

        script.script = refuse
        await script.start()
        async with asyncio.timeout(10):
            while not dropped:
                await asyncio.sleep(0.01)
        await script.stop()
        async with asyncio.timeout(10):
            while session._sender is None or session._sender.away is None:
                await asyncio.sleep(0.01)
        await topic.publish("after")
        await session.flush()
        script.script = lambda _: RIGHTLY
        await script.start()
        async with asyncio.timeout(10):
            while Spool.at(file).waiting():
                await asyncio.sleep(0.01)
        await topic.publish("last")
        await session.flush()
        async with asyncio.timeout(10):
            while Spool.at(file).waiting():
                await asyncio.sleep(0.01)
    assert [event.data for error in dropped for event in error.events] == ["refused"]
    assert isinstance(dropped[0], EventTooLargeError)
    assert script.events() == [0, 1, 2, "after", "last"]
