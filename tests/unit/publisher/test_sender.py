"""Whatever happens on the way: each event once, in order, or told of."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.publisher.scripted import RIGHTLY, Answer, Frame, ScriptedGateway, error
from wakeline.errors import (
    AttemptFencedError,
    EventTooLargeError,
    NotAllowedError,
    SequenceGapError,
    SessionClosedError,
    TokenExpiredError,
    UnavailableError,
)
from wakeline.publisher import PublishDroppedError, PublisherClashError, SessionPublisher
from wakeline.publisher import connection as connecting

SOON = timedelta(seconds=0.3)


async def reached(session: SessionPublisher) -> None:
    """Until the gateway is there again."""
    async with asyncio.timeout(60):
        while session._sender is not None and session._sender.away is not None:
            await asyncio.sleep(0.01)


def data(error: BaseException) -> list[Any]:
    assert isinstance(error, PublishDroppedError)
    return [event.data for event in error.events]


async def test_the_first_goes_at_once_and_the_next_batch_is_what_gathered_meanwhile(script: ScriptedGateway) -> None:
    async with SessionPublisher(script.url, session="s") as session:
        topic = session.topic("t")
        for n in range(20):
            await topic.publish(n)
        await session.flush()
        assert session.acknowledged == 20
    sizes = [len(frame["events"]) for frame in script.appends()]
    assert (sizes, script.events()) == ([1, 19], list(range(20)))


async def test_publishers_share_a_connection_and_messages(script: ScriptedGateway) -> None:
    publishers = [SessionPublisher(script.url, session=f"s{n}") for n in range(50)]
    await asyncio.gather(*(one.__aenter__() for one in publishers))
    script.messages.clear()
    await asyncio.gather(*(one.topic("t").publish(1) for one in publishers))
    await asyncio.gather(*(one.flush() for one in publishers))
    assert script.messages[0] == 50
    await asyncio.gather(*(one.aclose() for one in publishers))
    assert (script.connections, len(script.log)) == (1, 50)


async def test_a_thousand_publishers_take_another_connection(
    script: ScriptedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wakeline.publisher.pool.MOST_CHANNELS", 3)
    publishers = [SessionPublisher(script.url, session=f"s{n}") for n in range(7)]
    await asyncio.gather(*(one.__aenter__() for one in publishers))
    await asyncio.gather(*(one.topic("t").publish(1) for one in publishers))
    await asyncio.gather(*(one.aclose() for one in publishers))
    assert (script.connections, len(script.log)) == (3, 7)


@pytest.mark.parametrize("arrived", [True, False])
async def test_an_unknown_outcome_is_found_out(script: ScriptedGateway, arrived: bool) -> None:
    cuts = 0

    def cut(frame: Frame) -> Answer:
        nonlocal cuts
        if frame["type"] == "append" and cuts < 3:
            cuts += 1
            if arrived:
                script.append({**frame, "events": frame["events"][: 1 + len(frame["events"]) // 2]})
            return None
        return RIGHTLY

    script.script = cut
    async with SessionPublisher(script.url, session="s") as session:
        for n in range(50):
            await session.topic("t").publish(n)
    assert (cuts, script.events()) == (3, list(range(50)))


async def test_cuts_and_late_answers_at_random(script: ScriptedGateway) -> None:
    chance = random.Random(7)

    def now_and_then(frame: Frame) -> Answer:
        if chance.random() < 0.05:
            if frame["type"] == "append" and chance.random() < 0.5:
                key = next(key for key in script.log if frame["events"][0]["topic"] == key[0])
                script.append(frame, key)
            return None
        if frame["type"] == "append" and chance.random() < 0.05:
            return [error(frame["channel"], chance.choice(["storage_failed", "limit_reached"]), retry_after=0)]
        return RIGHTLY

    script.script = now_and_then

    async def publish(name: str) -> None:
        async with SessionPublisher(script.url, session=name, max_batch=chance.choice([3, 20, 500])) as session:
            for n in range(400):
                await session.topic(name).publish(n)
                if chance.random() < 0.02:
                    await session.flush()

    await asyncio.gather(*(publish(f"s{n}") for n in range(5)))
    assert [script.events(f"s{n}") for n in range(5)] == [list(range(400))] * 5


async def test_a_gateway_that_comes_late_gets_everything(away: ScriptedGateway) -> None:
    publishing = SessionPublisher(away.url, session="s")
    async with publishing as session:
        await session.topic("t").publish(1)
        flushing = asyncio.create_task(session.flush())
        await asyncio.sleep(0.05)
        assert not flushing.done()
        await away.start()
        await asyncio.wait_for(flushing, 60)
    assert away.events() == [1]


async def test_what_cannot_be_delivered_in_time_is_given_up_with_the_events(away: ScriptedGateway) -> None:
    async with SessionPublisher(away.url, session="s", max_retry_duration=SOON) as session:
        topic = session.topic("t")
        await topic.publish({"n": 1})
        await topic.publish(2, key="k")
        with pytest.raises(PublishDroppedError) as caught:
            await session.flush()
        assert [(e.topic, e.data, e.key) for e in caught.value.events] == [("t", {"n": 1}, None), ("t", 2, "k")]
        assert isinstance(caught.value, UnavailableError)
        await away.start()
        await reached(session)
        await topic.publish(3)
    assert away.events() == [3]


async def test_what_was_given_up_under_way_and_arrived_does_not_swallow_what_comes_next(
    script: ScriptedGateway,
) -> None:
    async with SessionPublisher(script.url, session="s", max_retry_duration=SOON) as session:
        topic = session.topic("t")

        def take_and_go(frame: Frame) -> Answer:
            if frame["type"] == "append":
                script.append(frame)
            return None

        script.script = take_and_go
        await topic.publish("maybe")
        with pytest.raises(PublishDroppedError) as caught:
            await session.flush()
        assert [e.data for e in caught.value.events] == ["maybe"]
        script.script = lambda _: RIGHTLY
        await topic.publish("next")
    assert script.events() == ["maybe", "next"]


async def test_error_says_so_at_once(script: ScriptedGateway) -> None:
    async with SessionPublisher(script.url, session="s", on_unavailable="error") as session:
        topic = session.topic("t")
        await topic.publish(1)
        await session.flush()
        await script.stop()

        async def scene() -> None:
            await topic.publish(2)  # which is told at once, if it is known by now
            await asyncio.wait_for(session.flush(), 60)

        with pytest.raises(UnavailableError) as caught:
            await scene()
        assert data(caught.value) == [2]
        with pytest.raises(UnavailableError) as again:
            await topic.publish(3)
        assert data(again.value) == [3]
        await script.start()
        await reached(session)
        await topic.publish(4)
    assert script.events() == [1, 4]


async def test_error_does_not_open_without_a_gateway(away: ScriptedGateway) -> None:
    with pytest.raises(UnavailableError):
        async with SessionPublisher(away.url, session="s", on_unavailable="error"):
            pytest.fail("it opened")


async def test_a_zombie_is_told_at_once_and_for_good(script: ScriptedGateway) -> None:
    async with SessionPublisher(script.url, session="s", publisher="p") as session:
        topic = session.topic("t")
        script.script = lambda frame: [error(frame["channel"], "attempt_fenced", attempt=2)]
        await topic.publish("stale")
        with pytest.raises(AttemptFencedError) as caught:
            await session.flush()
        assert isinstance(caught.value, PublishDroppedError)
        assert (caught.value.attempt, [e.data for e in caught.value.events]) == (2, ["stale"])
        for again in (topic.publish("more"), session.flush()):
            with pytest.raises(AttemptFencedError):
                await again
        with pytest.raises(AttemptFencedError):
            await session.aclose()


async def test_one_who_comes_too_late_does_not_open(script: ScriptedGateway) -> None:
    script.script = lambda frame: [error(frame["channel"], "attempt_fenced", attempt=3)]
    with pytest.raises(AttemptFencedError):
        async with SessionPublisher(script.url, session="s", publisher="p"):
            pytest.fail("it opened")


async def test_a_closed_session_is_told_with_the_events(script: ScriptedGateway) -> None:
    async def scene() -> None:
        async with SessionPublisher(script.url, session="s") as session:
            script.script = lambda frame: [error(frame["channel"], "session_closed")]
            await session.topic("t").publish(1)

    with pytest.raises(SessionClosedError) as caught:
        await scene()
    assert data(caught.value) == [1]


@pytest.mark.parametrize(("code", "kind"), [("event_too_large", EventTooLargeError), ("not_allowed", NotAllowedError)])
async def test_one_event_that_is_refused_does_not_take_its_batch_with_it(
    script: ScriptedGateway, code: str, kind: type[Exception]
) -> None:
    def refuse(frame: Frame) -> Answer:
        if frame["type"] == "append" and any(event["data"] in (13, 77) for event in frame["events"]):
            return [error(frame["channel"], code)]
        return RIGHTLY

    script.script = refuse
    refused: list[PublishDroppedError] = []
    async with SessionPublisher(script.url, session="s", on_dropped=refused.append) as session:
        for n in range(100):
            await session.topic("t").publish(n)
    assert script.events() == [n for n in range(100) if n not in (13, 77)]
    assert [e.data for report in refused for e in report.events] == [13, 77]
    assert all(isinstance(report, kind) for report in refused)


async def test_a_limit_is_waited_for(script: ScriptedGateway) -> None:
    left = 2

    def limit(frame: Frame) -> Answer:
        nonlocal left
        if frame["type"] == "append" and left:
            left -= 1
            return [error(frame["channel"], "limit_reached", retry_after=0)]
        return RIGHTLY

    script.script = limit
    async with SessionPublisher(script.url, session="s") as session:
        for n in range(10):
            await session.topic("t").publish(n)
    assert (left, script.events()) == (0, list(range(10)))


async def test_a_session_that_was_made_anew_is_told_of_and_gone_on_with(script: ScriptedGateway) -> None:
    async with SessionPublisher(script.url, session="s") as session:
        topic = session.topic("t")
        await topic.publish("gone")
        await session.flush()

        def delete(frame: Frame) -> Answer:
            script.log.clear()
            script.script = lambda _: RIGHTLY
            return None

        script.script = delete
        await topic.publish("refused")
        with pytest.raises(SequenceGapError) as caught:
            await session.flush()
        assert (caught.value.expected, data(caught.value)) == (0, ["refused"])
        await topic.publish("new")
    assert script.events() == ["new"]


async def test_two_under_one_name_are_told_apart(script: ScriptedGateway) -> None:
    async with SessionPublisher(script.url, session="s", publisher="p") as session:
        with pytest.raises(PublisherClashError):
            await SessionPublisher(script.url, session="s", publisher="p").__aenter__()
        # Another process has published under the name.
        script.log["s", "p", 1] += [{"topic": "t", "data": "theirs"}] * 3
        await session.topic("t").publish("ours")
        with pytest.raises(PublisherClashError) as caught:
            await session.flush()
        assert data(caught.value) == ["ours"]


async def test_a_silent_gateway_is_given_up_and_asked_again(
    script: ScriptedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "_ANSWER_SECONDS", 0.5)
    silent = True

    def say_nothing(frame: Frame) -> Answer:
        nonlocal silent
        if frame["type"] == "append" and silent:
            silent = False
            return []
        return RIGHTLY

    script.script = say_nothing
    async with SessionPublisher(script.url, session="s") as session:
        await session.topic("t").publish(1)
    assert script.events() == [1]
    assert script.connections >= 2  # on a busy machine the next one may be late, too


async def test_a_token_is_asked_for_anew_when_it_has_expired(script: ScriptedGateway) -> None:
    script.status, script.code = 401, "token_expired"
    given = iter(["old", "new"])

    def token() -> str:
        asked = next(given)
        if asked == "new":
            script.status = 101
        return asked

    async with SessionPublisher(script.url, token, session="s") as session:
        await session.topic("t").publish(1)
    assert (script.tokens[0], script.tokens[-1], script.events()) == ("Bearer old", "Bearer new", [1])


async def test_a_token_that_is_not_taken_is_told(script: ScriptedGateway) -> None:
    script.status, script.code = 401, "token_expired"
    with pytest.raises(TokenExpiredError):
        async with SessionPublisher(script.url, "fixed", session="s"):
            pytest.fail("it opened")


async def test_a_refused_connection_is_asked_again_when_there_is_something_to_send(script: ScriptedGateway) -> None:
    async with SessionPublisher(script.url, "fixed", session="s") as session:
        topic = session.topic("t")
        script.status, script.code = 403, "not_allowed"
        await script.cut()
        await topic.publish(1)
        with pytest.raises(NotAllowedError) as caught:
            await session.flush()
        assert data(caught.value) == [1]
        script.status = 101
        await topic.publish(2)
    assert script.events() == [2]


async def test_linger_waits_for_more_and_flush_does_not_wait(script: ScriptedGateway) -> None:
    async with SessionPublisher(script.url, session="s", linger=timedelta(seconds=30), max_batch=5) as session:
        for n in range(5):
            await session.topic("t").publish(n)
        await asyncio.wait_for(session.flush(), 60)
        await session.topic("t").publish(5)
        await session.topic("t").publish(6)
        await asyncio.wait_for(session.flush(), 60)
    assert [len(frame["events"]) for frame in script.appends()] == [5, 2]


async def test_an_error_of_the_block_is_not_hidden_and_what_there_was_arrives(script: ScriptedGateway) -> None:
    async def scene() -> None:
        async with SessionPublisher(script.url, session="s") as session:
            await session.topic("t").publish(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await scene()
    assert script.events() == [1]


async def test_an_error_of_the_block_waits_no_longer_than_it_must(
    away: ScriptedGateway, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wakeline.publisher.publisher._FAILING_FLUSH_SECONDS", 0.1)

    async def scene() -> None:
        async with SessionPublisher(away.url, session="s") as session:
            await session.topic("t").publish(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await scene()
    assert "1 events of session 's'" in caplog.text


async def test_one_who_is_cancelled_while_closing_tells_what_was_not_sent(away: ScriptedGateway) -> None:
    dropped: list[PublishDroppedError] = []
    session = SessionPublisher(away.url, session="s", on_dropped=dropped.append)
    await session.__aenter__()
    await session.topic("t").publish(1)
    closing = asyncio.create_task(session.aclose())
    await asyncio.sleep(0.02)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert [data(report) for report in dropped] == [[1]]


async def test_a_publisher_that_is_closed_keeps_nobody_waiting_for_room(away: ScriptedGateway) -> None:
    session = SessionPublisher(away.url, session="s", max_buffer=1, max_retry_duration=SOON)
    await session.__aenter__()
    topic = session.topic("t")
    await topic.publish(1)
    waiting = asyncio.create_task(topic.publish(2))
    await asyncio.sleep(0)
    outcome = await asyncio.gather(session.aclose(), waiting, return_exceptions=True)
    assert any(isinstance(one, PublishDroppedError) for one in outcome)


async def test_how_far_it_came_can_be_read_afterwards(script: ScriptedGateway) -> None:
    async with SessionPublisher(script.url, session="s") as session:
        await session.topic("t").publish(1)
    assert session.acknowledged == 1


async def test_resuming_supersedes_nothing_and_tells_how_many_there_are(script: ScriptedGateway) -> None:
    async with SessionPublisher(script.url, session="s", publisher="p", activity="a") as session:
        for n in range(3):
            await session.topic("t").publish(n)
    async with SessionPublisher(
        script.url, session="s", publisher="p", activity="a", attempt=2, resume=True
    ) as session:
        assert session.resumed == 3
    assert [frame.get("supersede") for frame in script.frames if frame["type"] == "open"] == [None, False]


async def test_publishers_one_after_the_other_need_one_connection(script: ScriptedGateway) -> None:
    for number in range(10):
        async with SessionPublisher(script.url, session=f"s{number}") as session:
            await session.topic("t").publish(number)
    assert [script.events(f"s{number}") for number in range(10)] == [[number] for number in range(10)]
    assert script.connections == 1


async def test_a_connection_that_nobody_needs_is_closed_after_a_while(
    script: ScriptedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "_IDLE_SECONDS", 0.05)
    for number in range(2):
        async with SessionPublisher(script.url, session="s") as session:
            await session.topic("t").publish(number)
        async with asyncio.timeout(60):
            while script._sockets:
                await asyncio.sleep(0.01)
    assert (script.events(), script.connections) == ([0, 1], 2)


async def test_one_that_broke_while_nobody_needed_it_is_made_anew(script: ScriptedGateway) -> None:
    for number in range(2):
        async with SessionPublisher(script.url, session="s") as session:
            await session.topic("t").publish(number)
        await script.stop()
        await script.start()
    assert script.events() == [0, 1]
