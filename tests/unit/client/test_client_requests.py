"""Requests for input in the Python client and on the command line: the open ones, answers, and the view."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.commands import wakeline
from tests.support import Served
from wakeline.client import SessionClient, SyncSessionClient
from wakeline.errors import AlreadyResolvedError, ValueInvalidError

PATH = "/v1/sessions/s/requests"


async def ask(served: Served, id: str, **more: Any) -> None:
    status, told = await served.call("POST", PATH, json={"id": id, "reason": "approval", **more})
    assert status == 200, told


async def test_open_requests_are_listed_and_answered(served: Served) -> None:
    await ask(served, "pay-1", choices=["approve", "reject"], expires_in=60)
    async with SessionClient(served.url) as client:
        session = client.session("s")
        (request,) = await session.requests()
        assert (request.id, request.status, request.choices) == ("pay-1", "open", ["approve", "reject"])
        assert request.expires_at is not None
        with pytest.raises(ValueInvalidError):
            await session.answer("pay-1", "perhaps")
        answered = await session.answer("pay-1", "approve", device="phone-1")
        assert answered.outcome is not None
        assert (answered.outcome.payload, answered.outcome.device) == ("approve", "phone-1")
        with pytest.raises(AlreadyResolvedError) as caught:
            await session.answer("pay-1", "reject")
        assert caught.value.details["outcome"]["payload"] == "approve"
        assert await session.requests() == []


async def test_a_thread_declines(served: Served) -> None:
    await ask(served, "pay-1")

    def decline() -> str:
        with SyncSessionClient(served.url) as client:
            session = client.session("s")
            (request,) = session.requests()
            return session.answer(request.id, status="cancelled").status

    assert await asyncio.to_thread(decline) == "cancelled"


async def test_a_view_has_the_open_requests(served: Served) -> None:
    for id in ("pay-1", "pay-2"):
        await ask(served, id)
    async with SessionClient(served.url) as client:
        session = client.session("s")
        await session.answer("pay-1", 1)
        async with session.view() as view:
            for _ in range(3):
                await anext(view)
            assert list(view.requests) == ["pay-2"]
            assert view.requests["pay-2"].data == {"id": "pay-2", "reason": "approval"}
            await session.answer("pay-2", 1)
            await anext(view)
            assert view.requests == {}


async def test_the_command_lists_answers_and_declines(served: Served) -> None:
    for id in ("pay-1", "pay-2"):
        await ask(served, id)

    async def run(*arguments: str) -> tuple[int, str]:
        code, out, _ = await wakeline("requests", *arguments, "--url", served.url)
        return code, out

    code, out = await run("list", "s")
    assert (code, sorted(json.loads(line)["id"] for line in out.splitlines())) == (0, ["pay-1", "pay-2"])
    code, out = await run("answer", "s", "pay-1", "approve", "--device", "shell")
    assert (code, json.loads(out)["outcome"]["payload"]) == (0, "approve")
    assert (await run("answer", "s", "pay-1", "reject"))[0] == 2
    code, out = await run("decline", "s", "pay-2")
    assert (code, json.loads(out)["status"]) == (0, "cancelled")
    assert (await run("answer", "s"))[0] == 2
    assert (await run("list", "s", "pay-1"))[0] == 2
