"""Frames that send inputs, without Temporal: which are refused, and how many may wait."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.feeds import feed
from tests.support import Served
from wakeline.gateway.sessions import Settled
from wakeline.gateway.transports import inputs

SAY: dict[str, Any] = {"id": "k1", "kind": "signal", "name": "say"}


@pytest.mark.parametrize(
    ("frame", "code", "key"),
    [
        ({"input": SAY}, "temporal_unavailable", "k1"),
        ({"input": {**SAY, "name": ""}}, "request_invalid", "k1"),
        ({"input": {**SAY, "name": "$cancel"}}, "request_invalid", "k1"),
        ({"input": {**SAY, "id": "ä"}}, "request_invalid", "ä"),
        ({"input": {**SAY, "kind": "query"}}, "request_invalid", None),
        ({"input": {**SAY, "by": "bob"}}, "request_invalid", None),
        ({"input": {"kind": "signal"}}, "request_invalid", None),
        ({}, "request_invalid", None),
    ],
)
async def test_frames_that_are_refused(served: Served, frame: dict[str, Any], code: str, key: str | None) -> None:
    async with feed(served) as client:
        await client.send("input", "s", **frame)
        refused = await client.next("error")
        assert (refused["error"]["code"], refused.get("input")) == (code, key)
        await client.send("input", "", input=SAY)
        assert await client.error() == "session_name_invalid"
        await client.send("ping")
        await client.next("pong")


async def test_so_many_inputs_wait_and_no_more(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    released = asyncio.Event()

    async def waits(*_: Any) -> Settled | None:
        await released.wait()
        return None

    monkeypatch.setattr(inputs, "send_input", waits)
    async with feed(served) as client:
        for number in range(33):
            await client.send("input", "s", input={**SAY, "id": f"k{number}"})
        refused = await client.next("error")
        assert (refused["error"]["code"], refused["input"]) == ("limit_reached", "k32")
        released.set()
        answers = [await client.next("outcome") for _ in range(32)]
        assert {answer["id"] for answer in answers} == {f"k{number}" for number in range(32)}
        assert {answer["status"] for answer in answers} == {"accepted"}


async def test_a_defect_is_answered_and_the_feed_goes_on(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: Any) -> Settled | None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(inputs, "send_input", fails)
    async with feed(served) as client:
        await client.send("input", "s", input=SAY)
        assert await client.error() == "internal"
        await client.send("ping")
        await client.next("pong")


async def test_a_client_that_leaves_ends_the_wait(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = asyncio.Event()

    async def waits(*_: Any) -> Settled | None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    monkeypatch.setattr(inputs, "send_input", waits)
    async with feed(served) as client:
        await client.send("input", "s", input=SAY)
        await client.send("ping")
        await client.next("pong")
    await asyncio.wait_for(ended.wait(), 60)
