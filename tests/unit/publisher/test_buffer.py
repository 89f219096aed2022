"""What waits to be sent: how much, and what happens to one more."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.publisher.scripted import RIGHTLY, Answer, Frame, ScriptedGateway
from wakeline.publisher import BufferFullError, PublishDroppedError, SessionPublisher


class Gate:
    """Keeps appends from being answered until it is opened."""

    def __init__(self, script: ScriptedGateway) -> None:
        self.held: list[Frame] = []
        self.open = False
        script.script = self._hold

    def _hold(self, frame: Frame) -> Answer:
        if frame["type"] != "append" or self.open:
            return RIGHTLY
        self.held.append(frame)
        self.open = True
        return []  # the connection is cut by the test, and the batch is sent again


async def under_way(gate: Gate) -> None:
    async with asyncio.timeout(60):
        while not gate.held:
            await asyncio.sleep(0.001)


async def test_block_waits_for_room(script: ScriptedGateway) -> None:
    gate = Gate(script)
    async with SessionPublisher(script.url, session="s", max_buffer=3) as session:
        topic = session.topic("t")
        await topic.publish(0)
        await under_way(gate)
        for n in range(1, 4):
            await topic.publish(n)
        more = [asyncio.create_task(topic.publish(n)) for n in range(4, 7)]
        await asyncio.sleep(0.02)
        assert not any(task.done() for task in more)
        more[1].cancel()
        await script.cut()
        await asyncio.wait([more[0], more[2]], timeout=60)
        await session.flush()
    assert script.events() == [0, 1, 2, 3, 4, 6]


async def test_error_says_so_and_takes_nothing(script: ScriptedGateway) -> None:
    gate = Gate(script)
    async with SessionPublisher(script.url, session="s", max_buffer=1, when_full="error") as session:
        topic = session.topic("t")
        await topic.publish(0)
        await under_way(gate)
        await topic.publish(1)
        with pytest.raises(BufferFullError, match="1 wait to be sent"):
            await topic.publish(2)
        await script.cut()
    assert script.events() == [0, 1]


async def test_drop_oldest_tells_what_it_dropped(script: ScriptedGateway) -> None:
    gate = Gate(script)
    dropped: list[PublishDroppedError] = []
    publishing = SessionPublisher(
        script.url, session="s", max_buffer=2, when_full="drop_oldest", on_dropped=dropped.append
    )
    async with publishing as session:
        topic = session.topic("t")
        await topic.publish(0)
        await under_way(gate)
        for n in range(1, 6):
            await topic.publish(n)
        await script.cut()
    assert script.events() == [0, 4, 5]
    assert [event.data for report in dropped for event in report.events] == [1, 2, 3]


async def test_drop_oldest_without_a_callback_raises_at_the_next_call(script: ScriptedGateway) -> None:
    gate = Gate(script)

    async def scene() -> None:
        async with SessionPublisher(script.url, session="s", max_buffer=1, when_full="drop_oldest") as session:
            topic = session.topic("t")
            await topic.publish(0)
            await under_way(gate)
            await topic.publish(1)
            await topic.publish(2)
            await script.cut()

    with pytest.raises(PublishDroppedError) as caught:
        await scene()
    assert ([event.data for event in caught.value.events], script.events()) == ([1], [0, 2])


async def test_coalesce_keeps_the_latest_of_each_key_in_the_first_one_s_place(script: ScriptedGateway) -> None:
    gate = Gate(script)
    async with SessionPublisher(script.url, session="s", when_full="coalesce") as session:
        topic, other = session.topic("t"), session.topic("o")
        await topic.publish("first", key="a")
        await under_way(gate)
        await topic.publish(1, key="a")
        await other.publish("o", key="a")
        await topic.publish("plain")
        await topic.publish("plain")
        await topic.publish(2, key="a")
        await topic.publish(3, key="b")
        await topic.publish(4, key="a")
        await script.cut()
        await session.flush()
        await topic.publish(5, key="a")
    assert script.events() == ["first", 4, "o", "plain", "plain", 3, 5]


async def test_the_buffer_is_full_by_bytes_too(script: ScriptedGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wakeline.publisher.intake._MAX_BYTES", 300)
    gate = Gate(script)
    async with SessionPublisher(script.url, session="s", when_full="error") as session:
        topic = session.topic("t")
        await topic.publish(0)
        await under_way(gate)
        await topic.publish("x" * 100)
        await topic.publish("x" * 100)
        with pytest.raises(BufferFullError, match="2 wait to be sent"):
            await topic.publish("x" * 100)
        await script.cut()


async def test_a_publisher_that_never_waits_does_not_keep_others_from_theirs(script: ScriptedGateway) -> None:
    async with SessionPublisher(script.url, session="s") as session:
        topic = session.topic("t")
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        for n in range(2000):
            await topic.publish(n)
        task.cancel()
        assert turns >= 2000 // 64
    assert script.events() == list(range(2000))


async def test_what_makes_room_does_not_stand_in_for_what_is_under_way(script: ScriptedGateway) -> None:
    gate, dropped = Gate(script), list[PublishDroppedError]()
    async with SessionPublisher(
        script.url, session="s", max_buffer=3, when_full="drop_oldest", on_dropped=dropped.append
    ) as session:
        topic = session.topic("t")
        await topic.publish(0)
        await under_way(gate)
        for n in range(1, 4):
            await topic.publish(n)
        flush = asyncio.create_task(session.flush())
        await asyncio.sleep(0)
        for n in range(4, 9):
            await topic.publish(n)
        await asyncio.sleep(0.02)
        assert not flush.done(), "0 is not durable yet"
        await script.cut()
        await asyncio.wait_for(flush, 60)
        assert script.events()[0] == 0
    assert [event.data for error in dropped for event in error.events] == [1, 2, 3, 4, 5]
    assert script.events() == [0, 6, 7, 8]
