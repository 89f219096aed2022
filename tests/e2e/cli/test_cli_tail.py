"""`wakeline tail` as a person runs it: what it prints, what it tells on stderr, and its exit code."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.accepting import accepting
from tests.commands import wakeline
from tests.gateways import GatewayProcess
from tests.support import Served
from tests.tokens import SECRET, token
from tests.unit.conftest import Serve
from tests.unit.transports.scripted import Answer, frame, opening, refused, scripted

STARTED = {
    "workflow_id": "order-1",
    "workflow_type": "OrderWorkflow",
    "run_id": "r",
    "started_at": "2026-11-21T05:14:43Z",
}


def a_run(status: str, **more: Any) -> list[Answer]:
    """A session in which a run went as told."""
    closed = {"status": status, "workflow_id": "order-1", "run_id": "r", "closed_at": "2026-11-21T05:14:55.300Z"}
    events = [
        frame(0, STARTED, topic="$run.started", run="r"),
        frame(1, {"state": "packed"}, topic="status", run="r"),
        frame(2, closed | more, topic="$run.closed", run="r"),
        frame(3, {}, topic="$session.settled"),
    ]
    return [opening(0) + b"".join(events), web.Response(status=204)]


async def start(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "wakeline", "tail", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1", **environment},
    )


async def tail(*arguments: str) -> tuple[int, list[str], str]:
    code, out, err = await wakeline("tail", *arguments)
    return code, out.splitlines(), err


@pytest.mark.parametrize(
    ("status", "code"),
    [("completed", 0), ("failed", 3), ("canceled", 4), ("terminated", 5), ("timed_out", 6), ("unknown", 7)],
)
async def test_the_exit_code_tells_how_the_run_ended(status: str, code: int) -> None:
    async with scripted(*a_run(status, failure={"message": "no stock"})) as server:
        exit_code, lines, err = await tail("order-1", "--url", server.url)
    assert (exit_code, err) == (code, "")
    assert [line[20:] for line in lines[:2]] == [
        "$run.started run started: OrderWorkflow order-1",
        'status {"state": "packed"}',
    ]
    assert lines[2].endswith("after 12.3 s: no stock")
    assert len(lines) == 4


async def test_missing_last_events_are_reported_with_advice() -> None:
    async with scripted(*a_run("completed", drained=False)) as server:
        exit_code, lines, err = await tail("order-1", "--url", server.url)
    assert exit_code == 0
    assert "its last events could not be read" in lines[2]
    assert "no worker answered: start a worker" in err
    assert "leave workers running" in err


async def test_only_the_topics_asked_for_are_printed_and_the_end_is_known_all_the_same() -> None:
    async with scripted(*a_run("failed")) as server:
        code, lines, _ = await tail("order-1", "--url", server.url, "--topics", "sta*", "other")
        assert (code, len(lines)) == (3, 1)
        assert server.requests[0].query["topics"] == "sta*,other,$run.*"


async def test_json_is_what_came_byte_for_byte() -> None:
    answers = a_run("completed")
    async with scripted(*answers) as server:
        code, lines, _ = await tail("order-1", "--json", "--url", server.url)
    assert isinstance(answers[0], bytes)
    assert [f"data: {line}".encode() for line in lines] == [x for x in answers[0].split(b"\n") if x[:5] == b"data:"]
    assert code == 0


async def test_a_refusal_is_told_with_exit_code_1(served: Served) -> None:
    await served.publish("s", {"topic": "t"})
    for arguments, error in [
        (["nowhere"], "session_not_found"),
        (["s", "--from", "tail:x"], "request_invalid"),
        (["s", "--from", "what"], "cursor_invalid"),
    ]:
        code, lines, err = await tail(*arguments, "--url", served.url)
        assert (code, lines, err.split(":")[0]) == (1, [], error)
        assert "Traceback" not in err


async def test_an_impossible_beginning_is_refused_before_a_token_is_asked_for(serve: Serve) -> None:
    served = await serve(token_secret=SECRET)
    code, _, err = await tail("s", "--from", "yesterday", "--url", served.url)
    assert (code, err.split(":")[0]) == (1, "cursor_invalid")
    assert "tail:N (the last N events)" in err


async def test_what_is_no_gateway_is_told_at_once() -> None:
    async def not_http(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00@\x00")  # as a gRPC server begins
        await writer.drain()

    page = web.Response(text="<!doctype html>", content_type="text/html")
    async with accepting(not_http) as grpc, scripted(page) as ui:
        for url in (f"http://127.0.0.1:{grpc}", ui.url):
            code, _, err = await tail("order-1", "--url", url)
            assert code == 1
            assert "a Wakeline gateway's, by default http://127.0.0.1:7777" in err
            assert "topics='*'" not in err
        assert len(ui.requests) == 1


@pytest.mark.parametrize("url", ["127.0.0.1:7777", "ftp://127.0.0.1", "http://127.0.0.1:7777x", "http://"])
async def test_a_url_that_is_none_is_told(url: str) -> None:
    code, _, err = await tail("order-1", "--url", url)
    assert code == 1
    assert err.startswith("request_invalid: expected a URL such as http://127.0.0.1:7777")
    assert f"the gateway: {url}" in err


async def test_where_to_begin_and_who_is_reading(served: Served) -> None:
    await served.publish("s", *({"topic": "t", "data": n} for n in range(5)))
    process = await start("s", "--url", served.url, "--until", "never", "--device", "phone", "--from", "tail:2")
    assert process.stdout is not None
    assert [(await asyncio.wait_for(process.stdout.readline(), 60))[:6] for _ in range(2)] == [b"     3", b"     4"]
    devices = (await served.call("GET", "/v1/sessions/s/devices"))[1]["devices"]
    assert [(device["device"], device["connected"]) for device in devices] == [("phone", True)]
    process.kill()
    await process.wait()


async def test_the_token_comes_from_an_option_or_the_environment(serve: Serve) -> None:
    served = await serve(token_secret=SECRET)
    good = token()
    assert (await wakeline("publish", "s", "1", "--url", served.url, "--token", good))[0] == 0
    assert (await tail("s", "--url", served.url))[2].startswith("token_missing")
    for arguments, environment in ((["--token", good], {}), ([], {"WAKELINE_TOKEN": good})):
        process = await start("s", "--until", "never", *arguments, WAKELINE_URL=served.url, **environment)
        assert process.stdout is not None
        assert (await asyncio.wait_for(process.stdout.readline(), 60)).startswith(b"     0")
        process.kill()
        await process.wait()


async def test_stderr_tells_when_the_connection_is_lost_and_back(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path / "data")
    await gateway.start()
    async with Served(gateway.url) as served:
        await served.publish("s", {"topic": "t", "data": 0})
    process = await start("s", "--until", "never", "--json", "--url", gateway.url)
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(await asyncio.wait_for(process.stdout.readline(), 60))["data"] == 0
    await gateway.kill()
    lost = (await asyncio.wait_for(process.stderr.readline(), 60)).decode()
    assert lost.startswith("the gateway cannot be reached: ")
    assert f"(the gateway: {gateway.url})" in lost
    assert lost.endswith("; retrying\n")
    await gateway.start()
    assert (await asyncio.wait_for(process.stderr.readline(), 60)).startswith(b"connected again")
    async with Served(gateway.url) as served:
        await served.publish("s", {"topic": "t", "data": 1})
    assert json.loads(await asyncio.wait_for(process.stdout.readline(), 60))["data"] == 1
    await gateway.kill()
    process.send_signal(signal.SIGINT)
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert (out, process.returncode) == (b"", 130)


async def test_a_refusal_that_passes_is_not_the_end() -> None:
    async with scripted(refused(503, "storage_failed"), *a_run("completed")) as server:
        code, lines, err = await tail("order-1", "--url", server.url)
    assert (code, len(lines)) == (0, 4)
    assert err.splitlines() == ["says storage_failed; retrying", "connected again; continuing after the last event"]


async def test_a_reader_that_has_enough_is_no_error() -> None:
    async with scripted(*a_run("failed")) as server:
        process = await asyncio.create_subprocess_shell(
            f"{sys.executable} -m wakeline tail order-1 --json --url {server.url} | head -1",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (len(out.splitlines()), err) == (1, b"")


async def test_a_terminal_gets_colours_and_lines_of_its_width() -> None:
    stream = opening(0) + frame(0, "x" * 1000, topic="status")
    ours, theirs = pty.openpty()
    async with scripted(stream, web.Response(status=204)) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "wakeline", "tail", "s", "--url", server.url),
            stdout=theirs,
            env={**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, "COLUMNS": "60", "TERM": "xterm"},
        )
        os.close(theirs)
        code = await asyncio.wait_for(process.wait(), 60)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert code == 0
    assert "\x1b[" in shown
    assert "x" * 20 in shown
    assert "…" in shown
    assert "x" * 50 not in shown


async def test_help_teaches() -> None:
    _, lines, _ = await tail("--help")
    text = " ".join(" ".join(lines).split())
    for part in ("3 failed", "6 timed out", "wakeline tail order-1 --from tail:20", "WAKELINE_TOKEN"):
        assert part in text


async def test_why_nothing_comes_and_why_there_is_no_end_is_told(served: Served) -> None:
    await served.publish("s", {"topic": "t"})
    for arguments, said in (
        (["later", "--wait-for-start"], "waiting for session later to start"),
        (["s"], "session s has no run, so it does not end by itself: Ctrl-C stops"),
    ):
        process = await start(*arguments, "--url", served.url)
        assert process.stderr is not None
        assert (await asyncio.wait_for(process.stderr.readline(), 60)).decode().strip() == said
        process.kill()
        await process.wait()
