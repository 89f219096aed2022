"""Each end of a run, as the encoders of both faces show it: live in the middle of a text, and to a page that comes later."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.transports.test_faces import Log, conversation
from wakeline.gateway.transports.faces import Conversation
from wakeline.gateway.transports.faces.ag_ui import AgUiEvents, Run
from wakeline.gateway.transports.faces.ai_sdk import UiMessageStream, ui_messages

ENDS = ["completed", "canceled", "terminated", "timed_out", "failed"]
FAILURE = {"message": "the model is away"}
IDS = {"threadId": "chat", "runId": "one"}


def closed(status: str, **more: Any) -> tuple[str, Any]:
    return "$run.closed", {"status": status, **({"failure": FAILURE} if status == "failed" else {}), **more}


def a_turn(log: Log) -> Conversation:
    """A chat with an answer in the middle of a text."""
    log.add("$run.started", {"workflow_type": "Chat"}, run="r")
    log.turn("k", "one")
    log.say("m", "It is ", run="r")
    return conversation(log.events)


def chunks(wire: bytes) -> list[Any]:
    data = [line.removeprefix("data: ") for line in wire.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(each) if each != "[DONE]" else each for each in data]


def ag_ui(live: Conversation, **how: Any) -> AgUiEvents:
    return AgUiEvents(Run("chat", "one"), lambda: live.turns, lambda: "epoch-9", **{"snapshot": False, **how})


AI_SDK_ENDS: dict[str, list[Any]] = {
    "completed": [{"type": "finish-step"}, {"type": "finish", "finishReason": "stop"}],
    "canceled": [{"type": "abort", "reason": "canceled"}],
    "terminated": [{"type": "abort", "reason": "terminated"}],
    "timed_out": [{"type": "error", "errorText": "the workflow ended as timed_out"}],
    "failed": [{"type": "error", "errorText": "the model is away"}],
}
AG_UI_ENDS: dict[str, Any] = {
    "completed": {"type": "RUN_FINISHED", **IDS, "outcome": {"type": "success"}},
    "canceled": {"type": "RUN_FINISHED", **IDS, "outcome": {"type": "cancelled"}},
    "terminated": {"type": "RUN_FINISHED", **IDS, "outcome": {"type": "cancelled"}},
    "timed_out": {"type": "RUN_ERROR", "message": "the workflow ended as timed_out", "code": "timed_out"},
    "failed": {"type": "RUN_ERROR", "message": "the model is away", "code": "failed"},
}


@pytest.mark.parametrize("status", ENDS)
def test_the_ai_sdk_s_message_ends_as_its_run(status: str) -> None:
    log = Log()
    live = a_turn(log)
    (turn,), encoder = live.turns, UiMessageStream()
    begun = chunks(encoder.begin(turn))
    assert [chunk["type"] for chunk in begun] == ["start", "start-step", "text-start", "text-delta"]
    live.changes()
    log.add(*closed(status), run="r")
    live.add(log.events[-1])
    assert (turn.is_running, turn.certain) == (False, True)
    assert chunks(encoder.advance(turn, live.changes())) == []
    assert chunks(encoder.end(turn)) == [{"type": "text-end", "id": "answer:m"}, *AI_SDK_ENDS[status], "[DONE]"]


@pytest.mark.parametrize("status", ENDS)
def test_ag_ui_s_run_ends_as_its_run(status: str) -> None:
    log = Log()
    live = a_turn(log)
    (turn,), encoder = live.turns, ag_ui(live)
    begun = chunks(encoder.begin(turn))
    assert [event["type"] for event in begun] == ["RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT"]
    live.changes()
    log.add(*closed(status), run="r")
    live.add(log.events[-1])
    assert chunks(encoder.advance(turn, live.changes())) == []
    assert chunks(encoder.end(turn)) == [{"type": "TEXT_MESSAGE_END", "messageId": "answer:m"}, AG_UI_ENDS[status]]


@pytest.mark.parametrize("status", ENDS)
def test_a_page_that_comes_after_the_end_has_the_text_so_far(status: str) -> None:
    log = Log()
    a_turn(log)
    log.add(*closed(status), run="r")
    late = conversation(log.events)
    (turn,) = late.turns
    user, answer = ui_messages(late.turns)
    assert (user["id"], [part["text"] for part in answer["parts"] if part["type"] == "text"]) == ("u-k", ["It is "])
    encoder = UiMessageStream()  # of a page that resumes the turn by its name
    shown = chunks(encoder.begin(turn)) + chunks(encoder.end(turn))
    assert {"type": "text-delta", "id": "answer:m", "delta": "It is "} in shown
    assert shown[-len(AI_SDK_ENDS[status]) - 1 :] == [*AI_SDK_ENDS[status], "[DONE]"]
    past = ag_ui(late, snapshot=True, past=True)
    _, snapshot, *rest = chunks(past.begin(turn)) + chunks(past.end(turn))
    assert [message["content"] for message in snapshot["messages"]] == ["one", "It is "]
    assert rest == [{"type": "RUN_FINISHED", **IDS}]  # an end that the page did not wait for is no news


@pytest.mark.parametrize("status", ["canceled", "terminated", "timed_out"])
def test_a_tool_call_without_an_outcome_stays_without_one(status: str) -> None:
    log = Log()
    live = a_turn(log)
    call = {"id": "c", "name": "pay", "state": "called", "arguments": {}}
    log.add("tool", call, key="c", run="r")
    live.add(log.events[-1])
    (turn,), events, stream = live.turns, ag_ui(live), UiMessageStream()
    events.begin(turn)
    stream.begin(turn)
    live.changes()
    log.add(*closed(status), run="r")
    live.add(log.events[-1])
    for end in (chunks(events.end(turn)), chunks(stream.end(turn))):
        assert not any("toolCallId" in each for each in end if isinstance(each, dict))


@pytest.mark.parametrize("status", ["canceled", "terminated", "timed_out"])
def test_a_sub_agent_ends_as_its_run_and_the_turn_goes_on(status: str) -> None:
    log = Log()
    live = a_turn(log)
    (turn,), encoder = live.turns, ag_ui(live)
    encoder.begin(turn)
    live.changes()
    for topic, data in (("$run.started", {"workflow_type": "Helper"}), closed(status)):
        log.add(topic, data, run="s")
        live.add(log.events[-1])
        (event,) = chunks(encoder.advance(turn, live.changes()))
        assert event["subagentRunId"] == "s"
    assert event["type"] == "SUBAGENT_ERROR"
    assert (event["code"], event["message"]) == (status, f"the workflow ended as {status}")
    assert turn.is_running
