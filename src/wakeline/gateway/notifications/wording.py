"""Words for people: the title and the text of a message, of its newest event."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from wakeline.events import ACTIVITY_STALLED, INPUT_REQUESTED, RUN_CLOSED
from wakeline.gateway.notifications.values import Message

_MEMBERS: Final = ("text", "message", "title", "body")
"""Members of an event's data that are a text for people; the first that is there counts."""


def worded(session: str, message: Message) -> tuple[str, str]:
    """Return the title and the text of a message.

    They are those that the publisher asked for, or else the session, and a line about the newest event.
    """
    if message.title:
        more = f"({message.count} events)" if message.count > 1 else ""
        return message.title, "\n".join(line for line in (message.body, more) if line)
    newest = _line(message.events[-1])
    return session, newest if message.count == 1 else f"{message.count} events, the newest: {newest}"


def _line(event: msgspec.Raw) -> str:
    try:
        known: dict[str, Any] = msgspec.json.decode(event)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    topic, data = str(known.get("topic", "")), known.get("data")
    members: dict[str, Any] = data if isinstance(data, dict) else {}
    if topic == RUN_CLOSED:
        failure = members.get("failure")
        reason = failure.get("message") if isinstance(failure, dict) else members.get("reason")
        status = str(members.get("status", "ended")).replace("_", " ")
        return f"The run {_ENDED.get(status, status)}" + (f": {reason}" if reason else "")
    if topic == INPUT_REQUESTED and not members.get("message"):
        return f"Input is requested: {members.get('reason', '')}"
    if topic == ACTIVITY_STALLED:
        return f"The activity {members.get('activity_type') or members.get('activity', '')} has stalled"
    if isinstance(data, str):
        return data
    return next((members[name] for name in _MEMBERS if isinstance(members.get(name), str)), topic)


_ENDED: Final = {
    "completed": "has completed",
    "failed": "has failed",
    "canceled": "was canceled",
    "terminated": "was terminated",
    "timed out": "has timed out",
    "unknown": "has ended",
}
