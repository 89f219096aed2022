"""The devices that watch, and the events that each received."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from wakeline.background import cancel_all
from wakeline.client import RefusedError, SessionClient, SessionEvent
from wakeline.errors import AlreadyResolvedError
from wakeline.events import INPUT_REQUESTED, INPUT_RESOLVED, RUN_CLOSED


class Seen:
    """The events that a device received of one session, checked for offsets 0, 1, 2 and so on.

    Attributes:
        asked: Is set once there was a request for input.
        question: The open request, if there is one.
        answer: The outcome of the last request.
    """

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self.items: list[tuple[str, Any]] = []
        self.missing = 0
        self.duplicate = 0
        self.cursor = "beginning"
        self.status: str | None = None
        self.asked = asyncio.Event()
        self.question: dict[str, Any] | None = None
        self.answer: dict[str, Any] | None = None
        self._next = 0

    def take(self, event: SessionEvent[Any]) -> None:
        """Record an event and check its offset."""
        if event.offset < self._next:
            self.duplicate += 1
        else:
            self.missing += event.offset - self._next
            self._next = event.offset + 1
            self.raw.append(event.raw)
            if not event.topic.startswith("$"):
                self.items.append((event.topic, event.data))
            elif event.topic == INPUT_REQUESTED:
                self.question = event.data
                self.asked.set()
            elif event.topic == INPUT_RESOLVED:
                self.question, self.answer = None, event.data
            elif event.topic == RUN_CLOSED:
                self.question, self.status = None, event.data["status"]
        self.cursor = event.cursor


class DemoDevice:
    """One device: a connection per session, which can be cut and restored.

    Args:
        name: Its name on the page.
        client: The client of the gateway.
    """

    def __init__(self, name: str, client: SessionClient) -> None:
        self.name = name
        self.online = False
        self.sessions: dict[str, Seen] = {}
        self._client = client
        self._watching: dict[str, asyncio.Task[None]] = {}

    def watch(self, session: str) -> None:
        """Follow a session from its beginning, at once or as soon as the device is online."""
        self.sessions.setdefault(session, Seen())
        if self.online:
            self._start(session)

    def go_online(self) -> None:
        """Connect; every session continues at the device's cursor."""
        self.online = True
        for session in self.sessions:
            self._start(session)

    async def go_offline(self) -> None:
        """Disconnect without closing anything."""
        self.online = False
        tasks, self._watching = list(self._watching.values()), {}
        await cancel_all(*tasks)

    async def answer(self, payload: str) -> None:
        """Answer every open question that the device has received."""
        for name, seen in self.sessions.items():
            if seen.question is not None:
                with suppress(AlreadyResolvedError):  # another device was faster
                    await self._client.session(name).answer(seen.question["id"], payload, device=self.name)

    async def finish(self, seconds: float) -> bool:
        """Wait until every session was received to its end; return False after `seconds`."""
        tasks = list(self._watching.values())
        _, waiting = await asyncio.wait(tasks, timeout=seconds) if tasks else (None, set())
        return not waiting

    def _start(self, session: str) -> None:
        task = self._watching.get(session)
        if task is None or (task.done() and self.sessions[session].status is None):
            self._watching[session] = asyncio.create_task(self._watch(session, self.sessions[session]))

    async def _watch(self, session: str, seen: Seen) -> None:
        with suppress(RefusedError):  # the verdict counts a session that cannot be read as missing
            async with self._client.session(session).events(
                from_=seen.cursor, until="settled", device=self.name
            ) as events:
                async for event in events:
                    seen.take(event)
