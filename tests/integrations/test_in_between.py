"""What comes in between: while the activity's session is being opened, and while it ends."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from tests.integrations.support import events_of, under
from tests.support import Served
from wakeline.integrations import langchain
from wakeline.integrations.activity_session import ActivitySession
from wakeline.integrations.langchain import SessionCallbackHandler
from wakeline.publisher import PublisherMisusedError, SessionPublisher, SyncSessionPublisher


class Opening(SessionPublisher):
    """One that is opened when the test says so."""

    def __init__(self, url: str) -> None:
        super().__init__(url, session="s")
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def __aenter__(self) -> Opening:
        self.asked.set()
        await self.go_on.wait()
        return await super().__aenter__()


class Failing(SessionPublisher):
    async def __aexit__(self, *error: Any) -> None:
        await super().__aexit__(*error)
        raise ValueError("no")


async def nothing() -> None:
    pass


def never() -> Any:
    raise AssertionError("not asked for")


async def test_a_session_that_is_opened_when_the_activity_has_ended_is_closed_again(served: Served) -> None:
    made = [Opening(served.url), Opening(served.url)]
    session = ActivitySession(made.copy().pop, never, nothing)
    async with session:
        asking = [asyncio.create_task(session.publisher()) for _ in range(2)]
        await made[1].asked.wait()
    made[1].go_on.set()
    for task in asking:
        with pytest.raises(LookupError, match="this one has ended"):
            await task
    with pytest.raises(PublisherMisusedError, match="expected an open publisher"):
        await made[1].topic("t").publish("late")
    assert not made[0].asked.is_set()


async def test_of_two_sessions_each_is_closed_whatever_comes_of_the_other(served: Served) -> None:
    failing, other = Failing(served.url, session="s"), SyncSessionPublisher(served.url, session="s")
    session = ActivitySession(lambda: failing, lambda: other, nothing)

    async def run() -> None:
        async with session:
            await session.publisher()
            await asyncio.to_thread(session.sync_publisher)

    with pytest.raises(ValueError, match="no"):
        await run()
    with pytest.raises(PublisherMisusedError, match="expected an open publisher"):
        await asyncio.to_thread(other.flush)


async def test_runs_beside_each_other_share_what_was_said_while_the_session_was_opened(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = asyncio.Event()
    async with SessionPublisher(served.url, session="s") as session:

        async def current() -> SessionPublisher:
            await opened.wait()
            return session

        monkeypatch.setattr(langchain, "current_session", current)
        handler = SessionCallbackHandler()
        runs = [uuid4(), uuid4()]
        starts = [
            asyncio.create_task(
                handler.on_tool_start({"name": "weather"}, "", run_id=run, inputs={"city": "Oslo"}, name="weather")
            )
            for run in runs
        ]
        await asyncio.sleep(0)
        opened.set()
        await asyncio.gather(*starts)
        for run in runs:
            await handler.on_tool_end("rain", run_id=run)
    told = under(await events_of(served, "s"), "tool")
    assert [one["arguments"] for one in told if one["state"] == "returned"] == [{"city": "Oslo"}] * 2
