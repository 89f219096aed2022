"""What tests of several folders share."""

from __future__ import annotations

import json
from typing import Any

from wakeline.events import Event, NewEvent, compose
from wakeline.gateway.log import Append, Appended, Engine, Publication

TIME = "2026-11-21T05:14:43.123Z"


def new_event(data: Any, topic: str = "t") -> NewEvent:
    return compose(topic, json.dumps(data).encode(), time=TIME)


def batch(
    session: str,
    *data: Any,
    publisher: str | None = None,
    attempt: int = 1,
    sequence: int = 0,
    covers: int | None = None,
    topic: str = "t",
) -> Append:
    publication = Publication(publisher, attempt, sequence, covers) if publisher else None
    return Append(session, tuple(new_event(d, topic) for d in data), publication)


async def publish(engine: Engine, session: str, *data: Any, **how: Any) -> Appended:
    return await engine.append(batch(session, *data, **how))


def data_of(event: Event) -> Any:
    return json.loads(event.json())["data"]


async def everything(engine: Engine, session: str) -> list[Event]:
    """A session's whole log, read in small pages."""
    events: list[Event] = []
    while True:
        start = events[-1].offset + 1 if events else 0
        page = await engine.read(session, start, before=1 << 62, limit=7)
        if not page.events:
            return events
        events += page.events
