"""What many ask for is done once."""

from __future__ import annotations

import asyncio

from wakeline.streams.shared import SharedWork


class Work:
    """Counts how often it is done; takes a while."""

    def __init__(self) -> None:
        self.begun = 0

    async def __call__(self) -> int:
        self.begun += 1
        await asyncio.sleep(0.05)
        return self.begun


async def test_those_who_come_together_get_one_answer() -> None:
    shared, work = SharedWork(), Work()
    answers = await asyncio.gather(*(shared.join("a", work) for _ in range(5)), shared.join("b", work))
    assert (answers[:5], work.begun) == ([answers[0]] * 5, 2)


async def test_the_most_impatient_decides() -> None:
    shared, work = SharedWork(), Work()
    async with asyncio.timeout(60):
        assert await asyncio.gather(*(shared.join("a", work, delay=delay) for delay in (60, 0.01))) == [1, 1]


async def test_hurry_begins_what_waits() -> None:
    shared, work = SharedWork(), Work()
    waiting = [asyncio.ensure_future(shared.join(key, work, delay=60)) for key in "ab"]
    await asyncio.sleep(0.01)
    assert work.begun == 0
    shared.hurry()
    async with asyncio.timeout(60):
        await asyncio.wait(waiting)
    assert work.begun == 2


async def test_work_ends_with_its_last_reader_unless_it_is_to_finish() -> None:
    before = asyncio.all_tasks()
    shared, done, begun, may = SharedWork(), [], asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await may.wait()
        done.append(True)

    for finish in (False, True):
        begun.clear()
        may.clear()
        reader = asyncio.ensure_future(shared.join("a", work, finish=finish))
        async with asyncio.timeout(60):
            await begun.wait()
            reader.cancel()
            await asyncio.wait({reader})
            may.set()
            while asyncio.all_tasks() - before:
                await asyncio.sleep(0.01)
        assert done == [True] * finish
