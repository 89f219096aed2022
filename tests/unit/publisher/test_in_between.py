"""What comes in between: while somebody waits, while nobody asks, while it ends. Nobody waits for ever, nothing is left over."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.unit.publisher.scripted import RIGHTLY, Answer, Frame, ScriptedGateway, error, spooling
from wakeline import blocking
from wakeline.cli.drain import _drain
from wakeline.errors import AttemptFencedError, NotAllowedError, RequestInvalidError, UnavailableError
from wakeline.publisher import (
    Nudger,
    PublishDroppedError,
    PublisherMisusedError,
    SessionPublisher,
    SyncSessionPublisher,
)
from wakeline.publisher import detour as detours
from wakeline.publisher.dial import Dial
from wakeline.publisher.drain import drain_source
from wakeline.publisher.errors import reports
from wakeline.publisher.frames import Identity
from wakeline.publisher.pool import shared_connection
from wakeline.publisher.spool import Page, Spool
from wakeline.publisher.sync import sending

ENOUGH = 60  # seconds; no test is meant to come near it


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


def body(data: str) -> bytes:
    return b'{"topic":"t","data":"%b"}' % data.encode()


async def test_a_connection_that_was_made_anew_while_the_spool_was_read_has_no_event_put_aside(
    script: ScriptedGateway, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, its = Spool.at(file), Identity(session="s", publisher="p")
    spool.add(its, 0, [body(str(n)) for n in range(501)])  # the second page is one event
    connection, loop = shared_connection(script.url, None), asyncio.get_running_loop()
    opened: dict[int, int] = {}

    def as_a_gateway_does(frame: Frame) -> Answer:
        if frame["type"] == "open":
            opened[frame["channel"]] = script.connections
        elif frame["type"] == "append" and opened[frame["channel"]] != script.connections:
            return [error(frame["channel"], "request_invalid")]
        return RIGHTLY

    async def anew() -> None:
        before = script.connections
        await script.cut()
        async with asyncio.timeout(ENOUGH):
            while script.connections == before or not connection.is_open:
                await asyncio.sleep(0.001)

    reads, page = 0, spool.page

    def read(identity: Identity) -> Page | None:
        nonlocal reads
        reads += 1
        if reads == 3:  # the first one only asks whether there is something
            asyncio.run_coroutine_threadsafe(anew(), loop).result(ENOUGH)
        return page(identity)

    script.script = as_a_gateway_does
    monkeypatch.setattr(spool, "page", read)
    refused: list[PublishDroppedError] = []
    with pytest.raises(UnavailableError, match="the channel with it"):
        await drain_source(spool, connection, its, refused)
    await drain_source(spool, connection, its, refused)
    assert (script.events(), spool.refused(), refused) == ([str(n) for n in range(501)], 0, [])


async def test_what_was_refused_is_told_also_if_the_gateway_ends_before_the_rest_is_sent(
    script: ScriptedGateway, file: Path
) -> None:
    spool = Spool.at(file)
    spool.add(Identity(session="a", publisher="p"), 0, [body("no"), body("yes"), body("no")])
    spool.add(Identity(session="b", publisher="p"), 0, [body("yes")])
    cuts = 0

    def refuse(frame: Frame) -> Answer:
        nonlocal cuts
        if frame["type"] == "append" and any(event["data"] == "no" for event in frame["events"]):
            return [error(frame["channel"], "event_too_large")]
        if frame["type"] == "open" and frame["session"] == "b" and not cuts:
            cuts += 1
            return None
        return RIGHTLY

    script.script = refuse
    sent, refused = await asyncio.wait_for(_drain(spool, script.url, None, wait=True), ENOUGH)
    assert cuts == 1
    assert (sent, [event.data for one in refused for event in one.events]) == (2, ["no", "no"])


async def test_a_refusal_counts_also_if_the_gateway_ends_before_the_rest_of_the_spool_is_sent(
    script: ScriptedGateway, file: Path
) -> None:
    dropped: list[PublishDroppedError] = []
    refusals = cuts = 0

    def refuse(frame: Frame) -> Answer:
        nonlocal refusals, cuts
        if frame["type"] == "append" and any(event["data"] == "no" for event in frame["events"]):
            refusals += 1
            return [error(frame["channel"], "event_too_large")]
        if frame["type"] == "append" and refusals and not cuts:
            cuts += 1
            return None  # it ends before it has what comes after
        assert frame["type"] != "append" or frame["sequence"] <= len(script.events())
        return RIGHTLY

    async with spooling(script, file, on_dropped=dropped.append) as session:
        topic = session.topic("t")
        await topic.publish("first")
        await session.flush()
        await script.stop()
        for data in ("no", "yes"):
            await topic.publish(data)
        await session.flush()
        script.script = refuse
        await script.start()
        async with asyncio.timeout(ENOUGH):
            while Spool.at(file).waiting() or session._sender is None or session._sender._trip is not None:
                await asyncio.sleep(0.005)
        await topic.publish("last")
        await session.flush()
    assert cuts == 1
    assert [event.data for one in dropped for event in one.events] == ["no"]
    assert script.events() == ["first", "yes", "last"]


async def test_who_is_told_of_a_loss_in_place_of_having_its_turn_leaves_it_to_the_next_one(
    script: ScriptedGateway,
) -> None:
    held: list[Frame] = []

    def hold(frame: Frame) -> Answer:
        if frame["type"] != "append":
            return RIGHTLY
        if frame["events"][0]["data"] == "bad":
            held.append(frame)
            return []
        return RIGHTLY

    script.script = hold
    async with SessionPublisher(script.url, session="s", max_buffer=1) as session:
        topic = session.topic("t")
        await topic.publish("bad")
        async with asyncio.timeout(ENOUGH):
            while not held:
                await asyncio.sleep(0.001)
        await topic.publish("second")
        told = asyncio.create_task(topic.publish("told"))
        waits = asyncio.create_task(topic.publish("waits"))
        await asyncio.sleep(0)
        assert session._sender is not None
        session._sender.refused(NotAllowedError("no such topic for this token"))
        async with asyncio.timeout(ENOUGH):
            with pytest.raises(PublishDroppedError):
                await told
            await waits
    assert script.events() == ["second", "waits"]


@pytest.mark.parametrize("steps", range(6))
async def test_a_cancelled_end_gives_the_channel_back_all_the_same(
    script: ScriptedGateway, file: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """The end waits for the file, which takes its time to tell what it had."""
    monkeypatch.setattr(detours, "_LAST_SECONDS", ENOUGH)
    asked, go_on = threading.Event(), threading.Event()

    def slowly(*_: object) -> list[bytes]:
        asked.set()
        go_on.wait(ENOUGH)
        return []

    monkeypatch.setattr(Spool.at(file), "refuse", slowly)
    session = spooling(script, file)
    await session.__aenter__()
    connection = shared_connection(script.url, None)
    sender = session._sender
    assert sender is not None
    await script.stop()
    async with asyncio.timeout(ENOUGH):
        while sender._trip is None:
            await asyncio.sleep(0.001)
    sender.end(AttemptFencedError("a later attempt has begun", attempt=2))
    ending = asyncio.create_task(session._stop())
    for _ in range(steps):
        await asyncio.sleep(0)
    ending.cancel()
    go_on.set()
    await asyncio.wait([ending], timeout=ENOUGH)
    await session._stop()  # for a task that was cancelled before it began, and has done nothing
    assert len(connection) == 0


@pytest.mark.parametrize("steps", range(6))
async def test_a_nudger_whose_end_is_cancelled_gives_the_channel_back(script: ScriptedGateway, steps: int) -> None:
    nudger = Nudger(script.url)
    await nudger.__aenter__()
    nudger.nudge("order-1")
    await asyncio.sleep(0)
    connection = nudger._connection
    assert connection is not None
    ending = asyncio.create_task(nudger.aclose())
    for _ in range(steps):
        await asyncio.sleep(0)
    ending.cancel()
    await asyncio.wait([ending], timeout=ENOUGH)
    await nudger.aclose()  # for a task that was cancelled before it began, and has done nothing
    assert len(connection) == 0


async def test_a_nudge_that_is_interrupted_does_not_keep_later_ones_waiting(
    script: ScriptedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Nudger(script.url) as nudger:
        loop = asyncio.get_running_loop()

        def interrupted(*_: object) -> Any:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(loop, "call_soon_threadsafe", interrupted)
            with pytest.raises(KeyboardInterrupt):
                nudger.nudge("order-1")
        nudger.nudge("order-2")
        async with asyncio.timeout(ENOUGH):
            while not any(frame.get("workflow_id") == "order-2" for frame in script.frames):
                await asyncio.sleep(0.001)


async def test_a_token_that_no_request_can_have_is_told_and_nobody_waits_for_a_connection(
    script: ScriptedGateway,
) -> None:

    async with asyncio.timeout(ENOUGH):
        with pytest.raises(RequestInvalidError, match="a token that fit into an HTTP request"):
            await SessionPublisher(script.url, lambda: "two\nlines", session="s").__aenter__()


async def test_who_does_not_wait_for_the_gateway_asks_it_again_after_it_was_there_and_refused(
    script: ScriptedGateway,
) -> None:
    publishing = SessionPublisher(
        script.url, session="s", on_unavailable="error", max_retry_duration=timedelta(seconds=ENOUGH)
    )
    async with publishing as session:
        sender = session._sender
        assert sender is not None
        await script.stop()
        async with asyncio.timeout(ENOUGH):
            while sender.away is None:
                await asyncio.sleep(0.001)
        script.status = 403
        await script.start()
        async with asyncio.timeout(ENOUGH):
            while not sender._dormant:
                await asyncio.sleep(0.001)
        script.status = 101
        async with asyncio.timeout(ENOUGH):
            while script.events() != ["back"]:
                try:
                    await session.topic("t").publish("back")
                    await session.flush()
                except PublishDroppedError:
                    await asyncio.sleep(0.005)


async def test_an_interrupt_just_when_it_was_opened_leaves_nothing_open(
    script: ScriptedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception for a thread that waits comes up when it waits no more: when what it waited for is done."""
    wait = blocking._wait

    def interrupted(ended: Any) -> Any:
        wait(ended)
        raise KeyboardInterrupt

    async def channels() -> int:
        return len(shared_connection(script.url, None))

    def enter() -> None:
        session = SyncSessionPublisher(script.url, session="s", publisher="p")
        with monkeypatch.context() as patched:
            patched.setattr(blocking, "_wait", interrupted)
            with pytest.raises(KeyboardInterrupt):
                session.__enter__()
        deadline = time.monotonic() + ENOUGH
        while sending.call(channels()) and time.monotonic() < deadline:
            time.sleep(0.001)
        with SyncSessionPublisher(script.url, session="s", publisher="p") as again:
            again.topic("t").publish("again")

    await asyncio.wait_for(asyncio.to_thread(enter), ENOUGH)
    assert script.events() == ["again"]


async def test_a_publisher_is_not_closed_by_who_cannot_open_it_twice(script: ScriptedGateway) -> None:
    def publish() -> None:
        with SyncSessionPublisher(script.url, session="s") as session:
            with pytest.raises(PublisherMisusedError, match="not open yet"):
                session.__enter__()
            session.topic("t").publish("open")

    await asyncio.to_thread(publish)
    assert script.events() == ["open"]


async def test_events_that_a_cancelled_block_leaves_are_logged_with_the_reason(
    away: ScriptedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with SessionPublisher(away.url, session="s") as session:
            await session.topic("t").publish(1)

    task = asyncio.create_task(work())
    async with asyncio.timeout(60):
        while not any("Reaching the gateway" in message for message in caplog.messages):
            await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (said,) = [message for message in caplog.messages if "not sent" in message]
    assert said.startswith("session 's': 1 events were not sent before it was closed: ")
    assert "cannot be reached" in said


def test_a_report_without_a_reason_names_none(caplog: pytest.LogCaptureFixture) -> None:
    reports("session 's'", None).add([b"{}"], "were dropped for later ones")
    assert caplog.messages == ["session 's': 1 events were dropped for later ones"]


async def test_a_connection_goes_on_after_an_unexpected_error(
    script: ScriptedGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    errors, dial = [KeyError("unexpected")], Dial.open

    async def failing_once(self: Dial) -> Any:
        if errors:
            raise errors.pop()
        return await dial(self)

    monkeypatch.setattr("wakeline.background._FIRST_PAUSE", 0.01)
    monkeypatch.setattr(Dial, "open", failing_once)
    async with SessionPublisher(script.url, session="s") as session:
        await session.topic("t").publish(1)
    assert script.events() == [1]
    assert [record.getMessage().split(" failed")[0] for record in caplog.records if record.exc_info] == [
        f"The background task connection to {script.url}"
    ]
