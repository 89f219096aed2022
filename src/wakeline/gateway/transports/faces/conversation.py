"""Folds a session's events into turns and parts: the one mapping that all faces share."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

import msgspec

from wakeline import events
from wakeline.compact.fold import Body, Fold, Piece, decode_body, decode_superseding
from wakeline.compact.operations import UNDECODABLE
from wakeline.compact.plain import PlainRanges
from wakeline.events import Event
from wakeline.gateway.inputs import ABORTED
from wakeline.gateway.rules import Face, PartKind
from wakeline.gateway.transports.faces.parts import Part, Request, Sub, Turn

STRUCTURE: Final = (
    events.INPUT_ACCEPTED,
    events.INPUT_COMPLETED,
    events.INPUT_REJECTED,
    events.INPUT_REQUESTED,
    events.INPUT_RESOLVED,
)
"""Wakeline's own topics that the turns are made of, with those of runs."""

_KINDS: Final[dict[str, PartKind]] = {"reasoning": "reasoning", "tool": "tool", "step": "step", "usage": "usage"}
"""The kinds of topics that the settings do not name; any other is text or data, as its events are."""


_first = attrgetter("first")


class Conversation:
    """The turns of a session, event by event.

    Args:
        rule: What the topics mean, and when a turn begins.
        latest_only: Forget the parts of a turn once the next one begins.
        kept: The id of a turn that is not forgotten all the same.

    Attributes:
        turns: The turns, oldest first.
    """

    def __init__(self, rule: Face, *, latest_only: bool = False, kept: str | None = None) -> None:
        self.turns: list[Turn] = []
        self._rule = rule
        self._latest_only = latest_only
        self._kept = kept
        self._fold = Fold(plain=PlainRanges())
        self._parts: dict[tuple[str, str], Part] = {}  # by topic and id or key, as in the fold
        self._tools: dict[str, Part] = {}
        self._requests: dict[str, tuple[Turn, Part]] = {}
        self._turn_of: dict[Part, Turn] = {}
        # Where each message, key and tool call began. It outlives their parts: an answer that was stopped may go on for
        # a while, and the rest belongs to its turn, although that is forgotten or an attempt was taken back meanwhile.
        self._began: dict[tuple[str, str], int] = {}
        self._forgotten: list[int] = []  # where the turns began that are forgotten
        self._dirty: dict[Part, None] = {}

    @property
    def latest(self) -> Turn | None:
        """The latest turn."""
        return self.turns[-1] if self.turns else None

    def find(self, id: str) -> Turn | None:
        """Return a turn by its id."""
        return next((turn for turn in reversed(self.turns) if turn.id == id), None)

    def turn_of(self, part: Part) -> Turn | None:
        """Return the turn of a part; None if the part was taken back, or its turn is forgotten."""
        return self._turn_of.get(part)

    def changes(self) -> list[Part]:
        """Return the parts that have changed since the last call."""
        changed, self._dirty = list(self._dirty), {}
        return changed

    def add(self, event: Event) -> None:
        """Add the next event of the log, or of the compact form that the log follows."""
        try:
            body = decode_body(b"{" + event.body)
        except UNDECODABLE:
            return
        if event.topic == events.ATTEMPT_SUPERSEDED:
            self._supersede(event, body)
        elif event.topic.startswith("$"):
            if event.topic != events.COMPACT and body.data:
                self._control(event, body, msgspec.json.decode(body.data))
        elif body.data:  # a Temporal payload is for those who can decode it
            self._content(event, body, bytes(body.data))

    def _control(self, event: Event, body: Body, data: Any) -> None:
        """Add one of Wakeline's own events; imported ones may have data of any shape."""
        if not isinstance(data, dict):
            return
        match event.topic:
            case events.INPUT_ACCEPTED:
                self._accepted(event, body, data)
            case events.INPUT_COMPLETED | events.INPUT_REJECTED:
                self._concluded(event.topic, body, data)
            case events.INPUT_REQUESTED:
                self._asked(event, body, data)
            case events.INPUT_RESOLVED:
                self._resolved(data)
            case events.RUN_STARTED if body.run is not None:
                self._started(event, body.run, str(data.get("workflow_type", "")))
            case events.RUN_CLOSED if body.run is not None:
                self._closed(body.run, data)
            case events.RUN_CONTINUED if body.run is not None:
                self._cut_off(body.run)
            case events.SESSION_CLOSED:
                for turn in self.turns:
                    if turn.is_running:
                        turn.status = "completed"

    def _begin(self, turn: Turn) -> None:
        if self._latest_only:
            ended = [turn for turn in self.turns if not turn.is_running and turn.id != self._kept]
            self._forget(ended)
            for gone in ended:
                insort(self._forgotten, gone.first)
            self.turns = [turn for turn in self.turns if turn not in ended]
        self.turns.append(turn)

    def _forget(self, turns: Sequence[Turn]) -> None:
        """Drop what is held of turns that are shown no more."""
        gone = {part for turn in turns for part in turn.parts}
        for name in [name for name, part in self._parts.items() if part in gone]:
            del self._parts[name]
            self._fold.messages.pop(name, None)
            self._fold.keyed.pop(name, None)
        for part in gone:
            self._turn_of.pop(part, None)
            self._dirty.pop(part, None)
            self._tools.pop(part.id, None) if part.kind == "tool" else None
        self._requests = {id: held for id, held in self._requests.items() if held[1] not in gone}

    def _accepted(self, event: Event, body: Body, data: dict[str, Any]) -> None:
        shown = data.get("shown")
        if not isinstance(shown, dict) or shown.get("role") != "user":
            return
        before = self.latest
        if before is not None and before.is_running and before.kind is None and before.run == body.run:
            before.status = "completed"  # a run's own turn ends with the first message to it
        if before is not None and before.run is not None:
            self._cut_off(before.run)
        kind = str(data.get("kind"))
        self._begin(Turn(str(data.get("id")), event.offset, user=shown, kind=kind, run=body.run))

    def _concluded(self, topic: str, body: Body, data: dict[str, Any]) -> None:
        turn = self.find(str(data.get("id")))
        if turn is None or not turn.is_running or turn.kind is None:
            return
        if topic == events.INPUT_REJECTED:
            turn.failure = _failure(data)
            # The outcome comes before the end of the run, which says whether it was stopped or has failed.
            turn.ends_with_run = turn.run is not None and _failure(data, "type") == ABORTED
            turn.status = "running" if turn.ends_with_run else "failed"
        elif turn.kind == "update":
            turn.status, turn.certain = "completed", False
        turn.run = turn.run or body.run

    def _started(self, event: Event, run: str, workflow_type: str) -> None:
        turn = self.latest
        if turn is not None and turn.is_running:
            if turn.run in (None, run):
                turn.run = run
            else:
                turn.subs[run] = Sub(run, workflow_type or run)
        elif self._rule.kind == "start":
            self._begin(Turn(run, event.offset, run=run))

    def _cut_off(self, run: str) -> None:
        """End the turns whose updates a run did not complete, although it goes on."""
        for turn in self.turns:
            if turn.ends_with_run and turn.is_running and turn.run == run:
                turn.status = "failed"

    def _closed(self, run: str, data: dict[str, Any]) -> None:
        if data.get("status") == "completed":
            self._cut_off(run)
        for turn in self.turns:
            if turn.is_running and turn.run == run:
                turn.status, turn.failure = data.get("status", "unknown"), _failure(data)
            if run in turn.subs:
                turn.subs[run].status, turn.subs[run].failure = data.get("status", "unknown"), _failure(data)

    def _asked(self, event: Event, body: Body, data: dict[str, Any]) -> None:
        try:
            request = msgspec.convert(data, Request)
        except msgspec.ValidationError:
            return
        call = request.tool_call_id or request.id
        name = (events.INPUT_REQUESTED, call)
        if self._is_forgotten(name, event.offset):
            return
        part = self._tools.get(call)
        if part is None:
            part = self._tools[call] = Part(call, "tool", request.reason, event.offset, 0, run=body.run)
            self._place(part, name)
        part.request = request
        self._requests[request.id] = self._turn_of[part], part
        self._dirty[part] = None

    def _resolved(self, data: dict[str, Any]) -> None:
        turn, part = self._requests.get(str(data.get("request")), (None, None))
        if turn is None or part is None or part.request is None or part.request.id != data.get("request"):
            return
        part.request.status, part.request.payload = str(data.get("status")), data.get("payload")
        self._dirty[part] = None
        if not turn.open_requests:
            turn.step += 1

    def _content(self, event: Event, body: Body, data: bytes) -> None:
        kind = self._rule.kind_of(event.topic) or _KINDS.get(event.topic)
        if kind == "hidden":
            return
        if kind == "finish":
            if self.latest is not None and self.latest.is_running:
                self.latest.status = "completed"
        elif body.message is not None:
            self._grow(event, body, body.message, data, kind)
        elif body.key is not None:
            self._keyed(event, body, body.key, kind or "data")
        else:
            value = msgspec.json.decode(data)
            part = Part(str(event.offset), "data", event.topic, event.offset, 0, run=body.run, value=value)
            self._place(part)
            self._dirty[part] = None

    def _grow(self, event: Event, body: Body, piece: Piece, data: bytes, kind: PartKind | None) -> None:
        name = (event.topic, piece.id)
        first = event.offset if body.compact is None else body.compact.first
        if self._is_forgotten(name, first):
            return
        part = self._parts.get(name)
        known = part is not None and part.is_text and body.compact is None
        before = part.text if known and part is not None and piece.op not in ("text", "none") else ""
        self._fold.add(event)
        message = self._fold.messages.get(name)
        if message is None:
            return
        if part is None and (piece.op == "none" or data == b"null"):
            return  # a message that was completed without a value
        if part is None:
            is_text = piece.op == "text" or (piece.op == "set" and data[:1] == b'"')
            shown: PartKind = "data" if not is_text else "reasoning" if kind == "reasoning" else "text"
            part = self._parts[name] = Part(piece.id, shown, event.topic, first, 0, run=body.run, message=message)
            self._place(part, name)
        elif known and piece.op == "text":
            part.fresh.append(msgspec.json.decode(data, type=str))
        elif known and piece.op != "none":
            after = part.text
            if after.startswith(before):
                part.fresh.append(after[len(before) :])
            else:
                self._turn_of[part].changed(part)
        part.complete = part.complete or piece.complete
        if not part.is_text:
            part.value = msgspec.json.decode(message.value())
        self._dirty[part] = None

    def _keyed(self, event: Event, body: Body, key: str, kind: PartKind) -> None:
        name = (event.topic, key)
        value: Any = msgspec.json.decode(body.data)
        first = event.offset if body.compact is None else body.compact.first
        if kind in ("tool", "step", "usage") and not isinstance(value, dict):
            kind = "data"
        shown = str(value.get("id", key)) if kind == "tool" else key
        call = (events.INPUT_REQUESTED, shown)  # a request names a tool call by its id
        if self._is_forgotten(name, first) or (kind == "tool" and self._is_forgotten(call, first)):
            return
        self._fold.add(event)
        part = self._parts.get(name)
        if part is None and kind == "tool" and shown in self._tools:
            part = self._parts[name] = self._tools[shown]
        if part is None:
            title = str(value.get("name", event.topic)) if kind == "tool" else event.topic
            part = self._parts[name] = Part(shown, kind, title, first, 0, run=body.run)
            self._place(part, name, visible=kind != "usage")
            if kind == "tool":
                self._tools[shown] = part
        self._set(part, value)

    def _set(self, part: Part, value: Any) -> None:
        part.value = value
        if part.kind == "tool":
            part.name = str(value.get("name", part.name))
        if part.kind == "usage":
            self._turn_of[part].usage[part.id] = value
        self._dirty[part] = None

    def _is_forgotten(self, name: tuple[str, str], first: int) -> bool:
        """Return whether a name's first event is in a forgotten turn; note where it is."""
        return self._turn_at(self._began.setdefault(name, first)) is None and bool(self.turns)

    def _turn_at(self, offset: int) -> Turn | None:
        """Return the turn that an offset is in; None if that is forgotten, or there is none yet."""
        at = bisect_right(self.turns, offset, key=_first) - 1
        if at < 0:
            return self.turns[0] if self.turns and not self._forgotten else None
        forgotten = bisect_right(self._forgotten, offset)
        is_later = forgotten > 0 and self._forgotten[forgotten - 1] > self.turns[at].first
        return None if is_later else self.turns[at]

    def _place(self, part: Part, name: tuple[str, str] | None = None, *, visible: bool = True) -> None:
        """Put a part into the turn in which its name began; that is not forgotten."""
        turn = self._turn_at(part.first if name is None else self._began[name])
        if turn is None:
            turn = Turn(part.run or "0", part.first, run=part.run, status="completed", certain=False)
            self._begin(turn)
        part.step = turn.step
        self._turn_of[part] = turn
        if visible:
            insort(turn.parts, part, key=_first)

    def _supersede(self, event: Event, body: Body) -> None:
        """Take back what an earlier attempt has published."""
        messages, states = self._fold.take_back(event)
        for name in messages:
            message, part = self._fold.messages.get(name), self._parts.get(name)
            if part is None:
                continue
            if message is None:
                self._remove(name, part)
            else:
                part.complete = any(segment.complete for segment in message.segments)
                part.fresh.clear()
                self._turn_of[part].changed(part)
                self._dirty[part] = None
        for name in states:
            keyed, part = self._fold.keyed.get(name), self._parts.get(name)
            if part is None:
                continue
            if keyed is None:
                self._remove(name, part)
            else:
                restored = decode_body(b"{" + keyed.events(name[0])[-1].body)
                self._set(part, msgspec.json.decode(bytes(restored.data or b"null")))
                self._turn_of[part].changed(part)
        self._remove_plain(body)

    def _remove_plain(self, body: Body) -> None:
        try:
            ranges = decode_superseding(body.data).offsets
        except UNDECODABLE:
            return
        for part, turn in list(self._turn_of.items()):
            is_plain = part.kind == "data" and part.id == str(part.first) and (part.name, part.id) not in self._parts
            if is_plain and any(first <= part.first <= last for first, last in ranges):
                self._drop(part, turn)

    def _remove(self, name: tuple[str, str], part: Part) -> None:
        del self._parts[name]
        turn = self._turn_of[part]
        if part.kind == "usage":
            turn.usage.pop(part.id, None)
        elif part.request is not None:  # what was asked stays
            part.value = None
            turn.changed(part)
            self._dirty[part] = None
            return
        self._tools.pop(part.id, None) if part.kind == "tool" else None
        self._drop(part, turn)

    def _drop(self, part: Part, turn: Turn) -> None:
        self._turn_of.pop(part)
        self._dirty.pop(part, None)
        if part in turn.parts:
            turn.parts.remove(part)
            turn.changed(part)


def _failure(data: dict[str, Any], member: str = "message") -> str | None:
    failure = data.get("failure")
    return str(failure.get(member)) if isinstance(failure, dict) else None
