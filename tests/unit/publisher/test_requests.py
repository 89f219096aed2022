"""A publisher asks people for input, and waits for the answer."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from tests.support import Served
from tests.tokens import SECRET, bearer, token
from tests.unit.conftest import Serve
from wakeline.errors import AlreadyResolvedError, RequestConflictError
from wakeline.publisher import SessionPublisher, SyncSessionPublisher

PATH = "/v1/sessions/s/requests"


async def answer(served: Served, id: str, payload: Any, **headers: str) -> None:
    status, told = await served.call("POST", f"{PATH}/{id}", json={"payload": payload}, headers=headers)
    assert status == 200, told


async def test_a_request_comes_after_the_events_before_it_and_its_answer_is_awaited(serve: Serve) -> None:
    served = await serve(token_secret=SECRET)
    worker = token(sub="worker", allow=["publish"])
    async with SessionPublisher(served.url, worker, session="s", run="r1", activity="a1") as session:
        await session.topic("status").publish("thinking")
        request = await session.request(
            "approval",
            id="pay-1",
            message="Pay?",
            choices=["approve", "reject"],
            expires=timedelta(minutes=1),
            audience="alice",
            metadata={"amount": 12},
        )
        assert request.request.status == "open"
        assert request.request.audience == ["alice"]
        assert await request.outcome(wait=timedelta(0)) is None
        waiting = asyncio.create_task(request.outcome())
        await answer(served, "pay-1", "approve", **bearer(sub="alice", inputs=["$answer.approval"]))
        outcome = await waiting
    assert outcome is not None
    assert (outcome.status, outcome.payload, outcome.by) == ("resolved", "approve", "alice")
    _, page = await served.call("GET", "/v1/sessions/s/events", headers=bearer())
    assert [event["topic"] for event in page["events"]] == ["status", "$input.requested", "$input.resolved"]
    assert {(event["run"], event["activity"]) for event in page["events"]} == {("r1", "a1")}


async def test_the_next_attempt_asks_once_and_has_the_answer(served: Served) -> None:
    for attempt in (1, 2):
        async with SessionPublisher(served.url, session="s", publisher="p", attempt=attempt, activity="a") as session:
            request = await session.request("approval", id="pay-1", expires=timedelta(minutes=1))
            if attempt == 1:
                await answer(served, "pay-1", True)
            outcome = await request.outcome()
            assert outcome is not None
            assert outcome.payload is True
            with pytest.raises(RequestConflictError):
                await session.request("approval", id="pay-1", message="Another?")
    _, page = await served.call("GET", "/v1/sessions/s/events?topics=$input.*")
    assert len(page["events"]) == 2


async def test_a_request_without_an_id_is_a_new_one_and_can_be_cancelled(served: Served) -> None:
    async with SessionPublisher(served.url, session="s") as session:
        first, second = await session.request("approval"), await session.request("approval")
        assert first.id != second.id
        await first.cancel()
        outcome = await first.outcome()
        assert outcome is not None
        assert outcome.status == "cancelled"
        await answer(served, second.id, 1)
        with pytest.raises(AlreadyResolvedError):
            await second.cancel()


async def test_a_thread_asks_too(served: Served) -> None:
    def ask() -> Any:
        with SyncSessionPublisher(served.url, session="s") as session:
            request = session.request("approval", id="pay-1")
            assert request.request.status == "open"
            outcome = request.outcome()
            return None if outcome is None else outcome.payload

    asking = asyncio.create_task(asyncio.to_thread(ask))
    async with asyncio.timeout(60):
        while (await served.call("GET", f"{PATH}/pay-1"))[0] != 200:
            await asyncio.sleep(0.01)
    await answer(served, "pay-1", "yes")
    assert await asking == "yes"
