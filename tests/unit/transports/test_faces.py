"""The fold of events into turns and parts: the compact form and the log give the same conversation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from wakeline.compact import Fold
from wakeline.events import Event, MessagePiece, compose
from wakeline.gateway.rules import Face
from wakeline.gateway.transports.faces import Conversation
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
