"""A turn as the events of one AG-UI run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from wakeline.gateway.transports.faces.ag_ui.history import activity, arguments, interrupts, messages, result_of
from wakeline.gateway.transports.faces.parts import Part, Turn

_VERSION: Final = "1.0"
_WORDS: Final = {"text": "TEXT_MESSAGE", "reasoning": "REASONING_MESSAGE"}

Event = dict[str, Any]


class Run(NamedTuple):
    """How the client names what it watches.

    Attributes:
        thread: The thread.
        run: The run.
    """

    thread: str
    run: str

    @property
    def ids(self) -> Event:
        """The members of events that have them."""
        return {"threadId": self.thread, "runId": self.run}


class AgUiEvents:
    """Shows a turn as one run.

    Args:
        run: How the client names the run.
        turns: Returns the turns of the thread, for snapshots.
        cursor: Returns the cursor after everything that was read.
        snapshot: Whether the run begins with a snapshot of the thread, because the client may not have all of it.
        past: Whether the turn has ended before the client came, so that its failure is no news.

    Attributes:
        is_over: False: snapshots can take back everything.
    """

    def __init__(
        self,
        run: Run,
        turns: Callable[[], Sequence[Turn]],
        cursor: Callable[[], str],
        *,
        snapshot: bool,
        past: bool = False,
    ) -> None:
        self.is_over = False
        self._run = run
        self._turns = turns
        self._cursor = cursor
        self._snapshot = snapshot
        self._past = past
        self._open: dict[Part, None] = {}  # texts that have begun and not ended
        self._known: dict[Part, str | None] = {}  # what was shown, and the outcome of tools
        self._steps: dict[Part, str] = {}
        self._subs: dict[str, bool] = {}  # whether it is still announced as running

    def begin(self, turn: Turn) -> bytes:
        """Return the start of the run, the thread so far if the client needs it, and what is open."""
        events: list[Event] = [{"type": "RUN_STARTED", **self._run.ids, "protocolVersion": _VERSION}]
        turn.reset = None
        if self._snapshot:
            return self._wire(events + self._anew(turn))
        return self._wire(
            events + self._begun_subs(turn) + [each for part in turn.parts for each in self._of(part, turn)]
        )

    def advance(self, turn: Turn, changed: Sequence[Part]) -> bytes:
        """Return what has changed."""
        if turn.reset is not None:
            turn.reset = None
            return self._wire(self._closed() + self._anew(turn) + self._ended_subs(turn))
        events = self._begun_subs(turn)
        for part in changed:
            if part in turn.parts:
                events += self._of(part, turn)
        return self._wire(events + self._ended_subs(turn))

    def end(self, turn: Turn) -> bytes:
        """Return the end of the run: its outcome, or the requests that it waits for."""
        events = self._closed()
        for step in self._steps.values():
            events.append({"type": "STEP_FINISHED", "stepName": step})
        for sub, runs in self._subs.items():
            if runs:
                suspended = {"outcome": {"type": "suspended"}} if turn.is_running else {}
                events.append({"type": "SUBAGENT_FINISHED", "subagentRunId": sub} | suspended)
        return self._wire([*events, self._finished(turn)])

    def _finished(self, turn: Turn) -> Event:
        finished: Event = {"type": "RUN_FINISHED", **self._run.ids}
        if self._past:
            return finished
        match turn.status:
            case "running":
                return finished | {"outcome": {"type": "interrupt", "interrupts": interrupts(turn)}}
            case "completed":
                return finished | {"outcome": {"type": "success"}} | ({"usage": _usage(turn)} if turn.usage else {})
            case "canceled" | "terminated":
                return finished | {"outcome": {"type": "cancelled"}}
            case status:
                return {
                    "type": "RUN_ERROR",
                    "message": turn.failure or f"the workflow ended as {status}",
                    "code": status,
                }

    def _anew(self, turn: Turn) -> list[Event]:
        """Return the thread as it is, and the beginnings of what is open."""
        events: list[Event] = [{"type": "MESSAGES_SNAPSHOT", "messages": messages(self._turns())}]
        events += self._begun_subs(turn)
        self._known = {part: part.outcome for part in turn.parts if part.kind != "tool" or part.value is not None}
        for part in turn.parts:
            part.fresh.clear()
            if part.is_text and not part.complete and turn.is_running:
                events += self._begun(part, turn)
            elif part.kind == "step":
                events += self._step(part, turn)
        return events

    def _of(self, part: Part, turn: Turn) -> list[Event]:
        """Return the events that the client misses of a part."""
        if part.is_text:
            return self._grown(part, turn)
        if part.kind == "step":
            return self._step(part, turn)
        if part.kind == "data":
            self._known[part] = None
            shown: Event = {"type": "ACTIVITY_SNAPSHOT", "messageId": part.key, "activityType": part.name}
            return [shown | {"content": activity(part), "replace": True} | _tag(part, turn)]
        if part.kind != "tool" or part.value is None:  # a request without a tool is an interrupt only
            return []
        return self._call(part, turn)

    def _grown(self, part: Part, turn: Turn) -> list[Event]:
        is_new = part not in self._known
        delta = part.text if is_new else "".join(part.fresh)
        part.fresh.clear()
        self._known[part] = None
        events = self._begun(part, turn) if part not in self._open and (is_new or delta) else []
        if delta:
            events.append({"type": f"{_WORDS[part.kind]}_CONTENT", "messageId": part.key, "delta": delta})
        return events + (self._closed_one(part) if part.complete else [])

    def _begun(self, part: Part, turn: Turn) -> list[Event]:
        self._open[part] = None
        tag = _tag(part, turn)
        if part.kind == "reasoning":
            begun: Event = {"type": "REASONING_START", "messageId": part.key} | tag
            return [begun, {"type": "REASONING_MESSAGE_START", "messageId": part.key, "role": "reasoning"} | tag]
        return [{"type": "TEXT_MESSAGE_START", "messageId": part.key, "role": "assistant"} | tag]

    def _closed_one(self, part: Part) -> list[Event]:
        if part not in self._open:
            return []
        del self._open[part]
        ended: Event = {"type": f"{_WORDS[part.kind]}_END", "messageId": part.key}
        return [ended, {"type": "REASONING_END", "messageId": part.key}] if part.kind == "reasoning" else [ended]

    def _closed(self) -> list[Event]:
        return [event for part in list(self._open) for event in self._closed_one(part)]

    def _call(self, part: Part, turn: Turn) -> list[Event]:
        events: list[Event] = []
        tag, call = _tag(part, turn), {"toolCallId": part.id}
        if part not in self._known:
            self._known[part] = None
            begun = {"toolCallName": part.name, "parentMessageId": f"call:{part.id}"}
            events.append({"type": "TOOL_CALL_START"} | call | begun | tag)
            events.append({"type": "TOOL_CALL_ARGS", **call, "delta": arguments(part)})
            events.append({"type": "TOOL_CALL_END", **call})
        if part.outcome is not None and self._known[part] != part.outcome:
            self._known[part] = part.outcome
            result = {"messageId": f"result:{part.id}", "content": result_of(part), "role": "tool"}
            events.append({"type": "TOOL_CALL_RESULT"} | call | result | tag)
        return events

    def _step(self, part: Part, turn: Turn) -> list[Event]:
        """Return the beginning or end of a step, unless one of its name is open."""
        name, state = str(part.value.get("name")), part.value.get("state")
        if state == "started" and part not in self._steps and name not in self._steps.values():
            self._steps[part] = name
            return [{"type": "STEP_STARTED", "stepName": name}]
        if state != "started" and part in self._steps:
            return [{"type": "STEP_FINISHED", "stepName": self._steps.pop(part)}]
        return []

    def _begun_subs(self, turn: Turn) -> list[Event]:
        events: list[Event] = []
        for sub in turn.subs.values():
            if sub.run not in self._subs and sub.status == "running":
                self._subs[sub.run] = True
                events.append({"type": "SUBAGENT_STARTED", "subagentRunId": sub.run, "name": sub.name})
        return events

    def _ended_subs(self, turn: Turn) -> list[Event]:
        events: list[Event] = []
        for sub in turn.subs.values():
            if sub.status == "running" or not self._subs.get(sub.run):
                continue
            self._subs[sub.run] = False
            for part in [part for part in self._open if part.run == sub.run]:
                events += self._closed_one(part)
            if sub.status == "completed":
                events.append({"type": "SUBAGENT_FINISHED", "subagentRunId": sub.run})
            else:
                failed = {"message": sub.failure or f"the workflow ended as {sub.status}", "code": sub.status}
                events.append({"type": "SUBAGENT_ERROR", "subagentRunId": sub.run} | failed)
        return events

    def _wire(self, events: list[Event]) -> bytes:
        """Return events as they are written; the last one has the cursor."""
        if not events:
            return b""
        frames = b"".join(b"data: %b\n\n" % msgspec.json.encode(event) for event in events[:-1])
        return frames + b"id: %b\ndata: %b\n\n" % (self._cursor().encode(), msgspec.json.encode(events[-1]))


def empty_run(run: Run) -> bytes:
    """Return the run that a client receives for a thread that has not begun."""
    events: list[Event] = [
        {"type": "RUN_STARTED", **run.ids, "protocolVersion": _VERSION},
        {"type": "MESSAGES_SNAPSHOT", "messages": []},
        {"type": "RUN_FINISHED", **run.ids},
    ]
    return b"".join(b"data: %b\n\n" % msgspec.json.encode(event) for event in events)


def _tag(part: Part, turn: Turn) -> Event:
    return {"subagentRunId": part.run} if part.run in turn.subs else {}


def _usage(turn: Turn) -> list[Event]:
    found: list[Event] = []
    for used in turn.usage.values():
        fields = {
            "model": used.get("model"),
            "inputTokens": used.get("input_tokens"),
            "outputTokens": used.get("output_tokens"),
            "totalTokens": used.get("total_tokens"),
        }
        found.append({name: value for name, value in fields.items() if value is not None})
    return found
