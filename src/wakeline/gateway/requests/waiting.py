"""Wakes callers that wait for a request for input, each by the events of its own request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec

from wakeline.events import INPUT_ANSWERED, INPUT_CLAIMED, INPUT_REQUESTED, INPUT_RESOLVED, Event
from wakeline.gateway.log import Change, Engine

_TOPICS: Final = (INPUT_REQUESTED, INPUT_CLAIMED, INPUT_ANSWERED, INPUT_RESOLVED)


class _Data(msgspec.Struct):
    id: str = ""
    request: str = ""


class _Body(msgspec.Struct):
    data: _Data


_body = msgspec.json.Decoder(_Body)


class _Session:
    """The callers that wait for requests of one session."""

    def __init__(self, engine: Engine, session: str) -> None:
        self.waiting: dict[str, set[asyncio.Event]] = {}  # by the request's id
        self.ignore: Callable[[], None] = engine.subscribe(session, self._listen)

    def _listen(self, _: str, __: str, events: Sequence[Event], changes: Sequence[Change]) -> None:
        ids = [_id_of(event) for event in events if event.topic in _TOPICS]
        for id in self.waiting if changes else ids:  # a change is that of the session, such as its deletion
            for changed in self.waiting.get(id, ()):
                changed.set()


class Waiting:
    """The callers that wait for a request, with one subscription for each session.

    Args:
        engine: The log.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sessions: dict[str, _Session] = {}

    @contextmanager
    def changes(self, session: str, id: str) -> Iterator[asyncio.Event]:
        """Set an event at each change of a request, inside the block."""
        if (held := self._sessions.get(session)) is None:
            held = self._sessions[session] = _Session(self._engine, session)
        changed = asyncio.Event()
        held.waiting.setdefault(id, set()).add(changed)
        try:
            yield changed
        finally:
            held.waiting[id].discard(changed)
            if not held.waiting[id]:
                del held.waiting[id]
            if not held.waiting:
                del self._sessions[session]
                held.ignore()


def _id_of(event: Event) -> str:
    """Return the id of the request that an event is about."""
    data = _body.decode(b'{"offset":0,' + event.body).data
    return data.id if event.topic == INPUT_REQUESTED else data.request
