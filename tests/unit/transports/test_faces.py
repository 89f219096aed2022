"""The fold of events into turns and parts: the compact form and the log give the same conversation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from wakeline.compact import Fold
from wakeline.events import Event, MessagePiece, compose
from wakeline.gateway.rules import Face
from wakeline.gateway.runtime import slices
from wakeline.gateway.transports.faces import Conversation, Reader, encoded_turn
from wakeline.gateway.transports.faces.ai_sdk import UiMessageStream, ui_messages

TIME = "2026-11-29T12:00:00.000Z"
FACE = Face(kind="update", name="message")


class Log:
    """Events, as a session would have them."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add(self, topic: str, data: Any, **how: Any) -> None:
        made = compose(topic, json.dumps(data).encode(), time=TIME, **how)
        self.events.append(Event(len(self.events), topic, made.body))

    def say(self, id: str, data: str, op: Any = "text", *, complete: bool = False, **how: Any) -> None:
        self.add("answer", data, message=MessagePiece(id, op, complete), **how)

    def turn(self, key: str, text: str, run: str = "r") -> None:
        shown = {"id": f"u-{key}", "role": "user", "text": text, "parts": [{"type": "text", "text": text}]}
        self.add("$input.accepted", {"id": key, "kind": "update", "name": "message", "shown": shown}, run=run)


def conversation(events: Sequence[Event], rule: Face = FACE) -> Conversation:
    folded = Conversation(rule)
    for event in events:
        folded.add(event)
    return folded


def compact(events: Sequence[Event]) -> list[Event]:
    fold = Fold()
    for event in events:
        fold.add(event)
    return fold.events()


def a_chat() -> Log:
    log = Log()
    log.add("$run.started", {"workflow_type": "Chat"}, run="r")
    log.turn("k1", "one")
    log.say("m1", "It is ", run="r", activity="1", attempt=1)
    log.add("tool", {"id": "c", "name": "look", "state": "called", "arguments": {}}, key="c", run="r", activity="1")
    log.say("m1", "snow", run="r", activity="1", attempt=1)
    log.add("$attempt.superseded", {"activity": "1", "attempt": 2, "offsets": [[2, 4]]})
    log.say("m1", "It is ", run="r", activity="1", attempt=2)
    log.say("m1", "sunny.", complete=True, run="r", activity="1", attempt=2)
    log.add("$input.completed", {"id": "k1"}, run="r")
    log.turn("k2", "two")
    log.say("m2", "Wait", run="r", activity="2", attempt=1)
    log.add("status", {"state": "busy"}, run="r")
    return log


@pytest.mark.parametrize("at", range(13))
def test_the_compact_form_and_the_log_after_it_give_the_same(at: int) -> None:
    events = a_chat().events
    whole, joined = conversation(events), conversation([*compact(events[:at]), *events[at:]])
    assert ui_messages(joined.turns) == ui_messages(whole.turns)
    assert [(turn.id, turn.status) for turn in joined.turns] == [("k1", "completed"), ("k2", "running")]
    texts = [[part.text for part in turn.parts if part.is_text] for turn in joined.turns]
    assert texts == [["It is sunny."], ["Wait"]]


def test_a_value_that_continues_the_text_is_a_delta_and_another_one_a_reset() -> None:
    log = Log()
    log.turn("k", "one")
    log.say("m", "Hel")
    live = conversation(log.events)
    (turn,) = live.turns
    encoder = UiMessageStream()
    encoder.begin(turn)
    live.changes()
    for data, wanted in [("Hello", b'"delta":"lo"'), ("Bye", b"reset-step")]:
        log.say("m", data, "set")
        live.add(log.events[-1])
        assert wanted in encoder.advance(turn, live.changes())
    assert turn.parts[0].text == "Bye"


def test_an_earlier_step_is_taken_back_by_a_resumed_stream_alone() -> None:
    log = Log()
    log.turn("k", "one")
    log.say("m", "Pay? ", activity="1", attempt=1)
    log.add("$input.requested", {"id": "q", "reason": "approval"})
    live = conversation(log.events)
    (turn,) = live.turns
    encoder = UiMessageStream()
    encoder.begin(turn)
    assert turn.is_waiting
    log.add("$input.resolved", {"request": "q", "status": "resolved", "payload": {"approved": True}})
    log.say("n", "Paid.", activity="2", attempt=1)
    log.add("$attempt.superseded", {"activity": "1", "attempt": 2, "offsets": [[1, 1]]})
    for event in log.events[3:]:
        live.add(event)
        shown = encoder.advance(turn, live.changes())
    assert encoder.is_over
    assert b'"type":"error"' in shown
    resumed = UiMessageStream().begin(turn)
    assert b"Pay?" not in resumed
    assert b"Paid." in resumed


def test_a_message_that_is_sent_again_replaces_what_follows() -> None:
    log = Log()
    for key, text in [("k1", "one"), ("k2", "two")]:
        log.turn(key, text)
        log.say(key, text.upper(), complete=True)
        log.add("$input.completed", {"id": key})
    log.add("$input.accepted", json.loads(log.events[0].json())["data"] | {"id": "k3"}, run="r")
    log.say("k3", "I", complete=True)
    log.add("$input.completed", {"id": "k3"})
    messages = ui_messages(conversation(log.events).turns)
    assert [message["id"] for message in messages] == ["u-k1", "k3"]


def rejected(log: Log, key: str, type: str) -> None:
    log.add("$input.rejected", {"id": key, "failure": {"message": "the run ended", "type": type}}, run="r")


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (("$run.closed", {"status": "canceled"}), "canceled"),
        (("$run.closed", {"status": "terminated"}), "terminated"),
        (("$run.closed", {"status": "timed_out"}), "timed_out"),
        (("$run.closed", {"status": "completed"}), "failed"),
        (("$run.continued", {"reason": "continue_as_new"}), "failed"),
        (("$input.accepted", {"id": "k2", "kind": "update", "shown": {"role": "user"}}), "failed"),
    ],
)
def test_a_turn_whose_run_ends_before_its_update_ends_as_the_run(end: tuple[str, Any], status: str) -> None:
    log = Log()
    log.turn("k1", "one")
    rejected(log, "k1", "AcceptedUpdateCompletedWorkflow")
    assert conversation(log.events).turns[0].is_running
    log.add(*end, run="r")
    turn = conversation(log.events).turns[0]
    assert (turn.status, turn.failure is None) == (status, status != "failed")


def test_a_turn_whose_update_is_refused_fails_at_once() -> None:
    log = Log()
    log.turn("k1", "one")
    rejected(log, "k1", "ValueError")
    assert (conversation(log.events).turns[0].status, conversation(log.events).turns[0].failure) == (
        *("failed", "the run ended"),
    )


@pytest.mark.parametrize("data", [None, 1, [], {"shown": 1}, {"shown": {"role": "user"}}])
def test_own_events_of_another_shape_do_no_harm(data: Any) -> None:
    log = Log()
    for topic in ("$input.accepted", "$input.completed", "$input.requested", "$input.resolved", "$attempt.superseded"):
        log.add(topic, data)
    log.add("$run.started", data, run="r")
    log.add("$run.closed", data, run="r")
    log.add("tool", data, key="k")
    ui_messages(conversation(log.events).turns)


def a_stopped_chat() -> Log:
    """Three answers; the first two were stopped while they grew, and go on during the third."""
    call = {"id": "c", "name": "look", "state": "called", "arguments": {}}
    log = Log()
    log.turn("k1", "one")
    log.say("m1", "It is ", run="r1", activity="1", attempt=1)
    log.add("tool", call, key="c", run="r1", activity="1", attempt=1)
    log.add("$run.closed", {"status": "canceled"}, run="r")
    log.turn("k2", "two", run="r2")
    log.say("m2", "Perhaps ", run="r2", activity="2", attempt=1)
    log.say("m1", "rainy ", run="r1", activity="1", attempt=1)
    log.add("$run.closed", {"status": "canceled"}, run="r2")
    log.turn("k3", "three", run="r3")
    log.say("m3", "Hello ", run="r3", activity="3", attempt=1)
    log.say("m1", "today, ", run="r1", activity="1", attempt=1)
    log.say("m2", "not.", run="r2", activity="2", attempt=1)
    log.add("$input.requested", {"id": "q", "reason": "approval", "tool_call_id": "c"}, run="r1")
    log.add("tool", {**call, "state": "returned"}, key="c", run="r1", activity="1", attempt=1)
    log.add("$attempt.superseded", {"activity": "1", "attempt": 2, "offsets": [[1, 2], [6, 6], [10, 10], [13, 13]]})
    log.say("m1", "It is sunny.", run="r1", activity="1", attempt=2)
    log.add("tool", call, key="c", run="r1", activity="1", attempt=2)
    log.say("m3", "World.", run="r3", activity="3", attempt=1)
    return log


@pytest.mark.parametrize("at", range(14))
@pytest.mark.parametrize("latest_only", [True, False])
def test_what_an_earlier_turn_has_begun_stays_out_of_the_next_one(at: int, latest_only: bool) -> None:
    events = a_stopped_chat().events
    joined = Conversation(FACE, latest_only=latest_only)
    for event in [*compact(events[:at]), *events[at:]]:
        joined.add(event)
    turn = joined.latest
    assert turn is not None
    assert [(part.kind, part.text) for part in turn.parts] == [("text", "Hello World.")]
    assert turn.is_running
    assert not turn.open_requests


def test_a_turn_that_is_forgotten_while_an_older_one_runs_keeps_its_rest() -> None:
    log = Log()
    log.turn("k1", "one", run="r1")
    log.turn("k2", "two", run="r2")
    log.say("m2", "It ", run="r2")
    log.add("$input.completed", {"id": "k2"}, run="r2")
    log.turn("k3", "three", run="r3")
    log.say("m2", "is sunny.", run="r2")
    folded = Conversation(FACE, latest_only=True)
    for event in [*compact(log.events)]:
        folded.add(event)
    assert [(turn.id, turn.parts) for turn in folded.turns] == [("k1", []), ("k3", [])]


class Growing:
    """A channel whose session gets a piece of an old answer with each read."""

    session, epoch, closed, deleted = "chat", "e", False, False

    def __init__(self, log: Log) -> None:
        self._log = log
        self.pages = self

    @property
    def tail(self) -> int:
        return len(self._log.events) + 1

    async def read(self, offset: int, **_: Any) -> SimpleNamespace:
        assert len(self._log.events) < 500, "the old answer holds the stream open"
        await asyncio.sleep(0.01)
        self._log.say("m1", "more ")
        return SimpleNamespace(events=self._log.events[offset:], next_offset=len(self._log.events))


class Whole:
    """A channel whose session is read in one page."""

    session, epoch, closed, deleted = "chat", "e", False, False

    def __init__(self, log: Log) -> None:
        self._events = log.events
        self.tail = len(log.events)
        self.pages = self

    async def snapshot(self, *_: object) -> SimpleNamespace:
        return SimpleNamespace(offset=self.tail)

    async def folded(self, *_: object, **__: object) -> tuple[Sequence[Event], int]:
        return self._events, self.tail

    async def reach(self, _: int) -> None:
        return None


async def test_a_long_session_is_read_without_holding_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE_SECONDS", 0.0)
    log, turns = Log(), 0
    for number in range(100):
        log.say(f"m{number}", "some")
    whole: Any = Whole(log)
    reading = asyncio.ensure_future(Reader(whole, Conversation(FACE), None).open(whole))
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 100


async def test_the_events_of_an_old_answer_do_not_hold_the_next_one_open() -> None:
    log = Log()
    log.turn("k1", "one")
    log.say("m1", "It is ")
    log.add("$run.closed", {"status": "canceled"}, run="r")
    log.turn("k2", "two", run="r2")
    log.say("m2", "Sunny.", run="r2")
    log.add("$input.completed", {"id": "k2"}, run="r2")
    live = Conversation(FACE, latest_only=True)
    channel: Any = Growing(log)
    reader = Reader(channel, live, None)
    for event in log.events:
        live.add(event)
        reader.offset += 1
    turn = live.latest
    assert turn is not None
    shown = b"".join([piece async for piece in encoded_turn(reader, turn, UiMessageStream(), keep_alive=5)])
    assert b'"delta":"Sunny."' in shown
    assert shown.endswith(b"data: [DONE]\n\n")
    assert b"more" not in shown
