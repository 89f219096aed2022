"""`wakeline tail` shows messages as they grow, and takes superseded output back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiohttp import web

from tests.commands import wakeline
from tests.gateways import GatewayProcess
from tests.support import Served
from tests.terminals import shown, until
from tests.unit.transports.scripted import frame, opening, scripted

WHO = {"publisher": "r:3", "run": "r", "activity": "3"}


def delta(text: str, name: str = "m-1", **more: Any) -> dict[str, Any]:
    return {"topic": "answer", "data": text, "message": {"id": name, "op": "text", **more}}


async def tail(*arguments: str) -> list[str]:
    """The lines that a pipe gets, without their times."""
    code, out, err = await wakeline("tail", *arguments)
    assert (code, err) == (0, "")
    return [line[:6] + line[19:] if line[:6].strip() else line for line in out.splitlines()]


async def test_a_pipe_gets_each_message_once_when_it_is_whole(served: Served) -> None:
    await served.publish("s", delta("Hel"), {"topic": "t", "data": 1}, delta("lo\nyou"), delta("x", "m-2"))
    await served.publish("s", delta("!", complete=True), {"topic": "t", "data": 2})
    await served.call("POST", "/v1/sessions/s/close")
    assert await tail("s", "--url", served.url) == [
        "     1 t 1",
        '     4 answer m-1 "Hello\\nyou!"',
        "     5 t 2",
        '     3 answer m-2 "x" (incomplete)',
        "     6 $session.closed closed: nothing more can be appended",
    ]
    assert (await tail("s", "--url", served.url, "--from", "tail:3"))[0] == '     4 answer m-1 "!"'


async def test_raw_has_every_event_on_a_line(served: Served) -> None:
    await served.publish("s", delta("Hel"), **WHO, sequence="0")
    await served.publish("s", delta("Hi", complete=True), **WHO, sequence="0", attempt="2")
    await served.call("POST", "/v1/sessions/s/close")
    assert (await tail("s", "--url", served.url, "--raw"))[:3] == [
        '     0 answer "Hel"',
        "     1 $attempt.superseded attempt 2 supersedes 1 event (0)",
        '     2 answer (attempt 2) "Hi"',
    ]
    assert (await tail("s", "--url", served.url))[:1] == ['     2 answer (attempt 2) m-1 "Hi"']


async def test_a_message_of_a_run_that_has_ended_is_printed_before_the_end() -> None:
    closed = {"status": "completed", "workflow_id": "s", "run_id": "r", "closed_at": "2026-11-21T05:14:55.300Z"}
    of_the_run = frame(0, "Hello", topic="answer", run="r", message={"id": "m-1", "op": "text"})
    of_another = frame(1, "other", topic="answer", run="q", message={"id": "m-2", "op": "text"})
    end = frame(2, closed, topic="$run.closed", run="r")
    async with scripted(opening(0) + of_the_run + of_another + end, web.Response(status=204)) as server:
        assert await tail("s", "--url", server.url) == [
            '     0 answer m-1 "Hello" (incomplete)',
            "     2 $run.closed run completed",
            '     1 answer m-2 "other" (incomplete)',
        ]


async def test_a_terminal_shows_a_line_that_grows_and_then_the_whole_message(served: Served) -> None:
    await served.publish("s", delta("It is "))
    async with shown("tail", "s", "--url", served.url, columns=60) as (terminal, process):
        await until(terminal, lambda text: text.endswith("answer m-1 It is ▌"))
        await served.publish("s", delta("a long story, of many words "))
        await served.publish("s", {"topic": "t", "data": 1})
        text = await until(terminal, lambda text: "t 1\n" in text and text.endswith("words ▌"))
        assert "answer m-1 …" in text
        assert text.count("answer") == 1
        await served.publish("s", delta("and here is\n\nits 寿司.", complete=True))
        await served.call("POST", "/v1/sessions/s/close")
        assert await process.wait() == 0
        text = await until(terminal, lambda text: "$session.closed" in text)
    lines = [line[20:] if line[:6].strip() else line for line in text.splitlines() if "has no run" not in line]
    assert lines[-1].startswith("$session.closed closed: ")
    assert lines[:-1] == [
        "t 1",
        "answer m-1",
        "       It is a long story, of many words and here is",
        "",
        "       its 寿司.",
    ]


async def test_a_terminal_takes_back_what_a_later_attempt_supersedes(served: Served) -> None:
    await served.publish("s", {"topic": "status", "key": "now", "data": "idle"})
    async with shown("tail", "s", "--url", served.url) as (terminal, _):
        busy = {"topic": "status", "key": "now", "data": "busy"}
        await until(terminal, lambda text: '"idle"' in text)
        await served.publish("s", delta("wrong"), busy, {"topic": "t", "data": 1}, **WHO, sequence="0")
        await until(terminal, lambda text: text.endswith("wrong▌") and "t 1" in text)
        await served.publish("s", delta("right"), **WHO, sequence="0", attempt="2")
        text = await until(terminal, lambda text: text.endswith("right▌"))
        below = text.partition("$attempt.superseded ")[2].splitlines()
        assert below[:4] == [
            "attempt 2 supersedes 3 events (1–3)",
            "       taken back: answer m-1 wrong",
            "       taken back: status now",
            '       counts again: status now "idle"',
        ]
        assert "\x1b[2;9m" in terminal.written, "expected the old text to be crossed out"


async def test_reports_on_stderr_stand_above_the_line_that_grows(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path / "data")
    await gateway.start()
    async with Served(gateway.url) as served:
        await served.publish("s", delta("It is "))
    async with shown("tail", "s", "--until", "never", "--url", gateway.url, columns=200) as (terminal, process):
        await until(terminal, lambda text: text.endswith("It is ▌"))
        await gateway.kill()
        text = await until(terminal, lambda text: "retrying" in text and text.endswith("It is ▌"))
        assert text.count("It is") == 1
        process.send_signal(2)
        assert await process.wait() == 130
        text = await until(terminal, lambda text: text.endswith("(incomplete)"))
        assert text.count("It is") == 1
