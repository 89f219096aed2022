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
from wakeline.text import whole

_COLOURS: Final = ("cyan", "green", "blue", "yellow", "bright_cyan", "bright_green", "bright_blue", "bright_yellow")
_STATUS_COLOURS: Final = {"completed": "bold green", "canceled": "bold yellow", "unknown": "bold yellow"}
_CONTINUED: Final = {
    "continue_as_new": "run continued as new",
    "retry": "run failed and is retried",
    "cron": "run of the schedule ended, the next one began",
    "reset": "run was reset and continues from an earlier point",
}
# Characters that control a terminal or change the direction of writing.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_json = JSONHighlighter()


class Lines:
    """Formats the events of one session, in their order.

    Args:
        width: The greatest width of a line; None for any.
    """

    def __init__(self, width: int | None = None) -> None:
        self._width = width
        self._began: dict[str | None, datetime] = {}

    def line(self, event: SessionEvent[Any]) -> Text:
        """Return the event's line."""
        line = Text.assemble(
            (f"{event.offset:>6} ", "dim"),
            (f"{event.time:%H:%M:%S}.{event.time.microsecond // 1000:03} ", "dim"),
            (f"{_shown(event.topic)} ", _colour(event.topic)),
            no_wrap=True,
        )
        if event.attempt is not None and event.attempt > 1:
            line.append(f"(attempt {event.attempt}) ", "dim")
        room = None if self._width is None else max(1, self._width - line.cell_len)
        said = self._words(event) or _json(Text(_cut(_as_json(event), room)))
        line.append_text(said)
        if self._width is not None:
            line.truncate(self._width, overflow="ellipsis")
        return line

    def _words(self, event: SessionEvent[Any]) -> Text | None:
        """Return one of Wakeline's own events in words; None if it is better shown as JSON."""
        data: Any = event.data
        try:
            match event.topic:
                case "$run.started":
                    self._began[event.run] = datetime.fromisoformat(data["started_at"])
                    return Text(_shown(f"run started: {data['workflow_type']} {data['workflow_id']}"), "bold")
                case "$run.continued":
                    return Text(_CONTINUED[data["reason"]], "bold")
                case "$run.closed":
                    return Text(_shown(self._end(event.run, data)), _STATUS_COLOURS.get(data["status"], "bold red"))
                case "$run.drained":
                    return Text("the run's last events have been added", "bold")
                case "$run.waiting":
                    return Text(_shown(_waiting(data)), "bold")
                case "$activity.retrying":
                    return Text(_shown(_retrying(data)), "bold yellow")
                case "$activity.paused":
                    return Text(_shown(_paused(data)), "bold yellow")
                case "$activity.stalled":
                    said = f"{data['activity_type']} has stalled: no heartbeat from attempt {data['attempt']}"
                    return Text(_shown(said), "bold red")
                case "$input.undone":
                    return Text(_shown(f"a reset has undone input {data['id']}"), "bold yellow")
                case "$input.accepted" | "$input.completed" | "$input.rejected":
                    return Text(_shown(_input(event.topic, data)), "bold")
                case "$input.requested" | "$input.claimed" | "$input.answered" | "$input.resolved":
                    return Text(_shown(_request(event.topic, data)), "bold")
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


def _waiting(data: dict[str, Any]) -> str:
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


def _retrying(data: dict[str, Any]) -> str:
    if data.get("over"):
        return f"activity {data['activity']} no longer waits for attempt {data['attempt']}"
    when = f" at {datetime.fromisoformat(data['next_at']):%H:%M:%S}" if data.get("next_at") else ""
    return f"{data['activity_type']} is retried{when} (attempt {data['attempt']}): {data['failure']['message']}"


def _paused(data: dict[str, Any]) -> str:
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
    return _shown(json.dumps(value, ensure_ascii=False))


def _colour(topic: str) -> str:
    """Return the topic's colour, the same in every process."""
    return "bold magenta" if topic.startswith("$") else f"bold {_COLOURS[zlib.crc32(topic.encode()) % len(_COLOURS)]}"


def _cut(text: str, room: int | None) -> str:
    return text if room is None else text[: room + 1]  # one more than fits, so that the line shows an ellipsis


def _shown(text: str) -> str:
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", whole(text))
