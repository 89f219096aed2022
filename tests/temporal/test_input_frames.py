"""Inputs as frames of a feed: the same as by a request, and nothing waits for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from temporalio.client import WorkflowHandle
from temporalio.testing import WorkflowEnvironment

from tests.feeds import feed
from tests.support import Served
from tests.temporal.test_follower import running_gateway, told
from tests.temporal.test_inputs import handle, log, name, put, served, until_logged, worker
from tests.tokens import SECRET, token

__all__ = ["handle", "name", "served", "worker"]
Handle = WorkflowHandle[Any, Any]


def asked(key: str, kind: str, method: str, *args: Any, **more: Any) -> dict[str, Any]:
    return {"id": key, "kind": kind, "name": method, "args": list(args), "wait": 30, **more}


async def test_an_input_in_a_frame_is_answered_with_its_outcome(handle: Handle, served: Served, name: str) -> None:
    async with feed(served) as client:
        await client.send("input", name, input=asked("k1", "update", "approve", "order 1", device="phone"))
        answer = await client.next("outcome")
        assert answer == {
            "type": "outcome",
            "session": name,
            "id": "k1",
            "status": "completed",
            "result": {"approved": "order 1"},
        }
        await client.send("input", name, input=asked("k2", "update", "approve", "nothing"))
        answer = await client.next("outcome")
        assert (answer["status"], answer["failure"]["type"]) == ("rejected", "Nothing")
    assert told(await log(served, name), "$input.accepted")[0] == {
        "id": "k1",
        "kind": "update",
        "name": "approve",
        "device": "phone",
    }


async def test_a_frame_and_a_request_with_one_key_are_one_input(handle: Handle, served: Served, name: str) -> None:
    async with feed(served) as client:
        await client.send("input", name, input=asked("k1", "signal", "say", "hello"))
        assert (await client.next("outcome"))["status"] == "completed"
        assert (await put(served, name, "signal", "say", "hello", id="k1"))[1]["status"] == "completed"
        await client.send("input", name, input=asked("k1", "signal", "say", "something else"))
        refused = await client.next("error")
        assert (refused["error"]["code"], refused["input"], refused["session"]) == ("input_conflict", "k1", name)
    assert await handle.query("all_heard") == ["hello"]


async def test_other_frames_are_served_while_an_input_waits(handle: Handle, served: Served, name: str) -> None:
    async with feed(served) as client:
        await client.send("input", name, input=asked("slow", "update", "waits", "first"))
        await client.send("ping", data=1)
        await client.next("pong")
        await client.send("input", name, input=asked("quick", "signal", "say", "second"))
        assert (await client.next("outcome"))["id"] == "quick"
        await client.send("input", name, input=asked("short", "update", "waits", "third", wait=0))
        answer = await client.next("outcome")
        assert (answer["id"], answer["status"]) == ("short", "accepted")
        await client.send("input", name, input=asked("free", "signal", "release"))
        answers = {frame["id"]: frame for frame in [await client.next("outcome") for _ in range(2)]}
        assert answers["slow"]["result"] == "released"


async def test_an_input_goes_on_without_its_feed(handle: Handle, served: Served, name: str) -> None:
    async with feed(served) as client:
        await client.send("input", name, input=asked("k1", "update", "waits", "hello"))
        await until_logged(served, name, "$input.accepted")
    await put(served, name, "signal", "release")
    await until_logged(served, name, "$input.completed")
    assert (await put(served, name, "update", "waits", "hello", id="k1"))[1]["result"] == "released"


async def test_a_token_limits_inputs_in_frames_as_by_request(
    temporal: WorkflowEnvironment, handle: Handle, tmp_path: Path, name: str
) -> None:
    async with running_gateway(temporal, tmp_path, no_auth=False, token_secret=SECRET) as served:
        headers = {"Authorization": f"Bearer {token(sub='alice', inputs=['say'])}"}
        async with feed(served, headers=headers) as client:
            await client.send("input", name, input=asked("k1", "update", "approve", "order 1"))
            refused = await client.next("error")
            assert (refused["error"]["code"], refused["input"]) == ("not_allowed", "k1")
            await client.send("input", name, input=asked("k2", "signal", "say", "hello"))
            assert (await client.next("outcome"))["status"] == "completed"
            await client.send("token", token=token(sub="alice", inputs=["approve"]))
            await client.next("token")
            await client.send("input", name, input=asked("k3", "signal", "say", "again"))
            assert await client.error() == "not_allowed"
        read = await served.call("GET", f"/v1/sessions/{name}/events", headers=headers)
        (accepted,) = told(read[1]["events"], "$input.accepted")
        assert accepted["by"] == "alice"
    assert await handle.query("all_heard") == ["hello"]
