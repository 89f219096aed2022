"""What the tests of the integrations share: reading a session as a device would, through plain HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from tests.support import Served


async def events_of(served: Served, session: str) -> list[dict[str, Any]]:
    """The whole log of a session, by the raw view; none where there is no session."""
    status, page = await served.call("GET", f"/v1/sessions/{quote(session, safe='')}/events?limit=10000")
    if status == 404:
        return []
    assert status == 200, page
    events: list[dict[str, Any]] = page["events"]
    return events


def under(events: Sequence[dict[str, Any]], topic: str) -> list[Any]:
    """The data of a topic's events, in order."""
    return [event["data"] for event in events if event["topic"] == topic]


def counting(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What counts: without what later attempts took back."""
    gone: set[int] = set()
    for event in events:
        if event["topic"] == "$attempt.superseded":
            for first, last in event["data"]["offsets"]:
                gone.update(range(first, last + 1))
    return [event for event in events if event["offset"] not in gone]


def messages(events: Sequence[dict[str, Any]], topic: str = "answer") -> dict[str, tuple[str, bool]]:
    """The messages that grew under a topic: text, and whether complete, by id."""
    grown: dict[str, tuple[str, bool]] = {}
    for event in counting(events):
        if event["topic"] == topic and "message" in event:
            piece = event["message"]
            text, complete = grown.get(piece["id"], ("", False))
            assert piece["op"] in ("text", "none")
            said = event["data"] if piece["op"] == "text" else ""
            grown[piece["id"]] = (text + said, complete or bool(piece.get("complete")))
    return grown
