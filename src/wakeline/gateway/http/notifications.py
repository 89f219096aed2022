"""Routes that list notifications, show their attempts, and send them again."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, Final, get_args

import msgspec
from aiohttp import web

from wakeline.errors import NotificationNotFoundError, RequestInvalidError
from wakeline.events import Cursor, check_session_name, parse_time, timestamp
from wakeline.gateway.access import GRANT
from wakeline.gateway.http.answers import json_answer
from wakeline.gateway.http.group import Group, route
from wakeline.gateway.http.parameters import integer, session_of
from wakeline.gateway.log import SessionState
from wakeline.gateway.notifications import Box, Message, State, replaced, retried

_SESSIONS: Final = 50  # whose boxes are read at a time
_MOST_READ: Final = 1_000
"""Sessions after which a page ends, even if it is empty."""


class _Wanted(msgspec.Struct, frozen=True):
    """The notifications that a request is about.

    Attributes:
        state: Their state; None for all.
        channel: Their channel; None for all.
        since: Unix time from which they were created.
        before: Unix time before which they were created.
    """

    state: str | None
    channel: str | None
    since: float
    before: float

    @classmethod
    def of(cls, request: web.Request, default: State | None = None) -> _Wanted:
        """Return what the query of a request asks for, with the default of its state."""
        state = request.query.get("state", default)
        if state is not None and state not in get_args(State):
            raise RequestInvalidError(f"expected state to be one of {', '.join(get_args(State))}, got {state[:40]!r}")
        since, before = _time(request, "from", 0.0), _time(request, "to", math.inf)
        return cls(state, request.query.get("channel"), since, before)

    def matches(self, message: Message) -> bool:
        """Return whether a message is wanted."""
        return (
            self.state in (None, message.state)
            and self.channel in (None, message.channel)
            and self.since <= message.created < self.before
        )


class NotificationRoutes(Group):
    """`/v1/notifications`, and those of one session, for tokens that may `manage`."""

    @route("GET", "/v1/notifications", "session after limit state channel from to")
    async def notifications(self, request: web.Request) -> web.Response:
        """List the notifications of all sessions, by session, the oldest of each first."""
        found, after = await self._page(request, _Wanted.of(request))
        shown = [_described(state.session, state.epoch, message) for state, messages in found for message in messages]
        return json_answer({"notifications": shown, "after": after})

    @route("POST", "/v1/notifications/retry", "session after limit state channel from to")
    async def retry_all(self, request: web.Request) -> web.Response:
        """Send a page of notifications again now: by default, of those that are dead."""
        wanted = _Wanted.of(request, "dead")
        self._check_channel(wanted.channel)
        found, after = await self._page(request, wanted)
        for state, messages in found:
            await self._retry(state, messages)
        return json_answer({"retried": sum(len(messages) for _, messages in found), "after": after})

    @route("GET", "/v1/sessions/{session}/notifications/{notification}")
    async def notification(self, request: web.Request) -> web.Response:
        """Return one notification with its events and its latest attempts."""
        session, message = await self._found(request)
        return json_answer(_described(session.session, session.epoch, message, whole=True))

    @route("POST", "/v1/sessions/{session}/notifications/{notification}/retry")
    async def retry(self, request: web.Request) -> web.Response:
        """Send a notification again now, whatever its state; its schedule restarts."""
        session, message = await self._found(request)
        box = await self._retry(session, [message])
        return json_answer(_described(session.session, session.epoch, _only(box, message.id), whole=True))

    async def _page(
        self, request: web.Request, wanted: _Wanted
    ) -> tuple[list[tuple[SessionState, list[Message]]], str | None]:
        """Return a page of matching messages.

        Returns:
            The messages by session, and the session that the next page begins after; None at the end.
        """
        grant, within = request[GRANT], request[GRANT].sessions
        grant.check("manage")
        if "session" in request.query:
            within = (check_session_name(request.query["session"]),)
            grant.check("manage", within[0])
        limit, after = integer(request, "limit", 100, 1, 1000), request.query.get("after", "")
        found: list[tuple[SessionState, list[Message]]] = []
        count = read = 0
        while read < _MOST_READ:
            states = await self._parts.engine.sessions(after=after, limit=_SESSIONS, within=within)
            read += len(states)
            boxes = await self._parts.outbox.load_all({state.session: state.epoch for state in states})
            for state in states:
                after, box = state.session, boxes.get(state.session)
                messages = [message for message in (box.messages if box else ()) if wanted.matches(message)]
                if messages:
                    found.append((state, messages))
                    count += len(messages)
                if count >= limit:
                    return found, after
            if len(states) < _SESSIONS:
                return found, None
        return found, after

    async def _retry(self, state: SessionState, messages: Sequence[Message]) -> Box:
        """Make messages pending again, and wake the owner of the session."""
        now = time.time()

        def change(box: Box) -> Box:
            for message in messages:
                box = replaced(box, retried(message, now))
            return box

        box = await self._parts.outbox.change(state.session, state.epoch, change)
        if self._parts.notifier is not None:
            self._parts.notifier.wake(state.session)
        return box

    def _check_channel(self, name: str | None) -> None:
        """Raise if a channel is named that the settings do not have: nothing can be sent through it."""
        channels = self._parts.settings.channels
        if name is not None and name not in channels:
            raise RequestInvalidError(
                f"expected channel to be one of the settings' channels ({', '.join(sorted(channels)) or 'none'}), "
                f"got {name[:64]!r}"
            )

    async def _found(self, request: web.Request) -> tuple[SessionState, Message]:
        name, _ = session_of(request, "manage")
        state = await self._parts.engine.found(name)
        stored = await self._parts.outbox.load(name, state.epoch)
        return state, _only(stored.box, request.match_info["notification"])


def _time(request: web.Request, name: str, default: float) -> float:
    text = request.query.get(name)
    if text is None:
        return default
    moment = parse_time(text)
    if moment is None or moment.tzinfo is None:
        raise RequestInvalidError(f"expected {name} to be a time such as 2026-11-29T06:00:00Z, got {text[:40]!r}")
    return moment.timestamp()


def _only(box: Box, name: str) -> Message:
    for message in box.messages:
        if message.id == name:
            return message
    raise NotificationNotFoundError(f"the session has no notification {name[:64]!r}")


def _described(session: str, epoch: str, message: Message, *, whole: bool = False) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": message.id,
        "session": session,
        "user": message.user,
        "channel": message.channel,
        "rules": message.rules,
        "digest": message.digest,
        "state": message.state,
        "created": timestamp(message.created),
        "next_attempt": timestamp(message.due) if message.state == "pending" else None,
        "cursor": str(Cursor(epoch, message.first)),
        "count": message.count,
        "attempts": [
            {"time": timestamp(attempt.at), "seconds": attempt.seconds, "outcome": attempt.outcome}
            for attempt in message.attempts
        ],
    }
    return shown | ({"events": message.events} if whole else {})
