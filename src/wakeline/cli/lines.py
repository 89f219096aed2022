"""An event as a line for people, no wider than the terminal.

Each topic has a colour of its own, and Wakeline's own events are put into words.
"""

from __future__ import annotations

import json
import re
import zlib
from datetime import datetime
from typing import Any, Final

from rich.highlighter import JSONHighlighter
from rich.text import Text

from wakeline.client import SessionEvent
from wakeline.events import ATTEMPT_SUPERSEDED
from wakeline.text import whole

_COLOURS: Final = ("cyan", "green", "blue", "yellow", "bright_cyan", "bright_green", "bright_blue", "bright_yellow")
_STATUS_COLOURS: Final = {
    "running": "green",
    "completed": "bold green",
    "canceled": "bold yellow",
    "unknown": "bold yellow",
}
_CONTINUED: Final = {
    "continue_as_new": "run continued as new",
    "retry": "run failed and is retried",
    "cron": "run of the schedule ended, the next one began",
    "reset": "run was reset and continues from an earlier point",
}
# Characters that control a terminal or change the direction of writing.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_RANGES: Final = 5
_json = JSONHighlighter()


def _head(event: SessionEvent[Any], topic: str) -> Text:
    head = Text.assemble(
        (f"{event.offset:>6} ", "dim"),
        (f"{event.time:%H:%M:%S}.{event.time.microsecond // 1000:03} ", "dim"),
        (f"{shown(topic)} ", _colour(topic)),
        no_wrap=True,
    )
    if event.attempt is not None and event.attempt > 1 and topic != ATTEMPT_SUPERSEDED:
        head.append(f"(attempt {event.attempt}) ", "dim")
    return head


class Lines:
    """Formats the events of one session, in their order.

    Attributes:
        width: The greatest width of a line; None for any.
    """

    def __init__(self, width: int | None = None) -> None:
        self.width = width
        self._began: dict[str | None, datetime] = {}

    def line(self, event: SessionEvent[Any]) -> Text:
        """Return the event's line."""
        line = _head(event, event.topic)
        room = None if self.width is None else max(1, self.width - line.cell_len)
        line.append_text(self._words(event) or self.value(event, room))
        if self.width is not None:
            line.truncate(self.width, overflow="ellipsis")
        return line

    def value(self, event: SessionEvent[Any], room: int | None = None) -> Text:
        """Return the event's data as JSON, cut to about `room` characters."""
        return _json(Text(_cut(_as_json(event), room)))

    def message(
        self, name: tuple[str, str], event: SessionEvent[Any], value: Any, *, one_line: bool
    ) -> tuple[Text, Text]:
        """Return what stands before a message's value, and the value.

        Args:
            name: Its topic and its id.
            event: The event that changed it last.
            value: The whole value.
            one_line: Show a text as JSON, so that it has no line breaks.
        """
        head = _head(event, name[0])
        head.append(f"{shown(name[1])} ", "dim")
        if isinstance(value, str) and not one_line:
            return head, Text("\n".join(map(shown, value.splitlines())))
        return head, _json(Text(shown(_json_text(value))))

    def _words(self, event: SessionEvent[Any]) -> Text | None:
        """Return one of Wakeline's own events in words; None if it is better shown as JSON."""
        data: Any = event.data
        try:
            match event.topic:
                case "$run.started":
                    self._began[event.run] = datetime.fromisoformat(data["started_at"])
                    return Text(shown(f"run started: {data['workflow_type']} {data['workflow_id']}"), "bold")
                case "$run.continued":
                    return Text(_CONTINUED[data["reason"]], "bold")
                case "$run.closed":
                    return Text(shown(self._end(event.run, data)), status_colour(data["status"]))
                case "$run.drained":
                    return Text("the run's last events have been added", "bold")
                case "$run.waiting":
                    return Text(shown(waiting(data)), "bold")
                case "$activity.retrying":
                    return Text(shown(retrying(data)), "bold yellow")
                case "$activity.paused":
                    return Text(shown(paused(data)), "bold yellow")
                case "$activity.stalled":
                    said = f"{data['activity_type']} has stalled: no heartbeat from attempt {data['attempt']}"
                    return Text(shown(said), "bold red")
                case "$attempt.superseded":
                    return Text(shown(_superseded(data)), "bold yellow")
                case "$input.undone":
                    return Text(shown(f"a reset has undone input {data['id']}"), "bold yellow")
                case "$input.accepted" | "$input.completed" | "$input.rejected":
                    return Text(shown(_input(event.topic, data)), "bold")
                case "$input.requested" | "$input.claimed" | "$input.answered" | "$input.resolved":
                    return Text(shown(_request(event.topic, data)), "bold")
                case "$session.settled":
                    return Text("settled: no run is open", "bold")
                case "$session.closed":
                    return Text("closed: nothing more can be appended", "bold")
                case "$gap":
                    return Text(f"{data['missed']:,} events can no longer be read", "bold red")
        except (KeyError, TypeError, ValueError):
            pass  # another version's data: shown as JSON
        return None

    def _end(self, run: str | None, data: dict[str, Any]) -> str:
        """Return, for example, `run failed after 12.3 s: Activity task failed (CardError: no card)`."""
        status = str(data["status"])
        said = "run ended with an unknown status" if status == "unknown" else f"run {status.replace('_', ' ')}"
        began = self._began.pop(run, None)
        if began is not None:
            said += f" after {_duration((datetime.fromisoformat(data['closed_at']) - began).total_seconds())}"
        if failure := data.get("failure"):
            inner = ": ".join(failure[key] for key in ("type", "cause") if failure.get(key))
            said += f": {failure['message']}" + (f" ({inner})" if inner else "")
        if reason := data.get("reason"):
            said += f": {reason}"
        return said if data.get("drained", True) else f"{said} (its last events could not be read)"


def waiting(data: dict[str, Any]) -> str:
    """Return what a run waits for, in words, by the data of its `$run.waiting`."""
    match data["for"]:
        case "worker":
            return f"waits for a worker of task queue {data['task_queue']}"
        case "input":
            said = "waits for " + (", ".join([*data.get("signals", ()), *data.get("updates", ())]) or "input")
        case "timer":
            said = "waits for a timer"
        case "task_retry":
            said = f"its workflow task fails and is retried (attempt {data['attempt']})"
            return f"{said}: {data['failure']['message']}" if data.get("failure") else said
        case _:
            return "continues"
    said += f", until {datetime.fromisoformat(data['until']):%Y-%m-%d %H:%M:%S} UTC" if "until" in data else ""
    return f"{said}: {data['details']}" if data.get("details") else said


def retrying(data: dict[str, Any]) -> str:
    """Return the data of an `$activity.retrying` in words."""
    if data.get("over"):
        return f"activity {data['activity']} no longer waits for attempt {data['attempt']}"
    when = f" at {datetime.fromisoformat(data['next_at']):%H:%M:%S}" if data.get("next_at") else ""
    return f"{data['activity_type']} is retried{when} (attempt {data['attempt']}): {data['failure']['message']}"


def _superseded(data: dict[str, Any]) -> str:
    ranges = [(int(first), int(last)) for first, last in data["offsets"]]
    count = sum(last - first + 1 for first, last in ranges)
    events = "1 event" if count == 1 else f"{count:,} events"
    named = [str(first) if first == last else f"{first}–{last}" for first, last in ranges[:_RANGES]]
    where = ", ".join(named) + (", …" if len(ranges) > _RANGES else "")
    return f"attempt {data['attempt']} supersedes {events} ({where})"


def paused(data: dict[str, Any]) -> str:
    """Return the data of an `$activity.paused` in words."""
    if data.get("over"):
        return f"activity {data['activity']} is no longer paused"
    said = f"{data['activity_type']} is paused before attempt {data['attempt']}"
    said += f" by {data['by']}" if data.get("by") else ""
    return f"{said}: {data['reason']}" if data.get("reason") else said


def _input(topic: str, data: dict[str, Any]) -> str:
    match topic:
        case "$input.accepted":
            named = " ".join(filter(None, (data["kind"], data.get("name"))))
            return f"input {data['id']} accepted: {named}{_sender(data)}"
        case "$input.rejected":
            return f"input {data['id']} rejected: {data['failure']['message']}"
        case _:
            result = f": {_json_text(data['result'])}" if "result" in data else ""
            return f"input {data['id']} completed{result}"


def _request(topic: str, data: dict[str, Any]) -> str:
    match topic:
        case "$input.requested":
            choices = f" ({', '.join(data['choices'])})" if data.get("choices") else ""
            return f"{data['id']} asks for {data['reason']}: {data.get('message', '')}".rstrip(": ") + choices
        case "$input.claimed":
            return f"{data['device']} runs the tool of {data['request']}"
        case "$input.answered":
            return f"{data['request']} answered: {_json_text(data['payload'])}{_sender(data)}"
        case _:
            payload = f": {_json_text(data['payload'])}" if data["status"] == "resolved" else ""
            return f"{data['request']} {data['status']}{payload}{_sender(data)}"


def _sender(data: dict[str, Any]) -> str:
    named = (("by", data.get("by")), ("from", data.get("device")))
    return "".join(f" {word} {name}" for word, name in named if name)


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _as_json(event: SessionEvent[Any]) -> str:
    value = event.data if event.payload is None else event.payload
    return shown(json.dumps(value, ensure_ascii=False))


def status_colour(status: str) -> str:
    """Return the colour of a run's status."""
    return _STATUS_COLOURS.get(status, "bold red")


def _colour(topic: str) -> str:
    """Return the topic's colour, the same in every process."""
    return "bold magenta" if topic.startswith("$") else f"bold {_COLOURS[zlib.crc32(topic.encode()) % len(_COLOURS)]}"


def _cut(text: str, room: int | None) -> str:
    return text if room is None else text[: room + 1]  # one more than fits, so that the line shows an ellipsis


def shown(text: str) -> str:
    """Return a text without characters that would command a terminal."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", whole(text))
