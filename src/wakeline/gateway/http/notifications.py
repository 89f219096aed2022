"""Routes that list notifications, show their attempts, and send them again."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, Final, get_args

import msgspec
from aiohttp import web

from wakeline.errors import NotificationNotFoundError, RequestInvalidError, SessionNotFoundError
from wakeline.events import Cursor, check_session_name, timestamp
from wakeline.gateway.access import GRANT
from wakeline.gateway.http.answers import json_answer
from wakeline.gateway.http.group import Group, route
from wakeline.gateway.http.parameters import integer
from wakeline.gateway.log import SessionState
from wakeline.gateway.notifications import Box, Message, State, replaced

_SESSIONS: Final = 50  # whose boxes are read at a time
_MOST_READ: Final = 1_000
"""Sessions after which a page ends, even if it is empty."""


class NotificationRoutes(Group):
    """`/v1/notifications`, and those of one session, for tokens that may `manage`."""

    @route("GET", "/v1/notifications", "session after limit state")
    async def notifications(self, request: web.Request) -> web.Response:
        """List the notifications of all sessions, by session, the oldest of each first."""
        grant, state = request[GRANT], _state(request)
        grant.check("manage")
        limit, after = integer(request, "limit", 100, 1, 1000), request.query.get("after", "")
        within = grant.sessions
        if "session" in request.query:
            within = (check_session_name(request.query["session"]),)
            grant.check("manage", within[0])
        found: list[dict[str, Any]] = []
        read, whole = 0, False
        while len(found) < limit and read < _MOST_READ and not whole:
            states = await self._parts.engine.sessions(after=after, limit=_SESSIONS, within=within)
            whole = len(states) < _SESSIONS
            read += len(states)
            boxes = await self._parts.outbox.load_all({one.session: one.epoch for one in states})
            for one in states:
                after = one.session
                found += [_described(one.session, one.epoch, message) for message in _in(boxes.get(after), state)]
                if len(found) >= limit:
                    whole = whole and one is states[-1]
                    break
        return json_answer({"notifications": found, "after": None if whole else after})

    @route("GET", "/v1/sessions/{session}/notifications/{notification}")
    async def notification(self, request: web.Request) -> web.Response:
        """Return one notification with its events and its latest attempts."""
        session, message = await self._found(request)
        return json_answer(_described(session.session, session.epoch, message, whole=True))

    @route("POST", "/v1/sessions/{session}/notifications/{notification}/retry")
    async def retry(self, request: web.Request) -> web.Response:
        """Send a notification again now, whatever its state; its schedule restarts."""
        session, message = await self._found(request)
        again = msgspec.structs.replace(message, state="pending", due=time.time(), failures=0, forced=True)
        box = await self._parts.outbox.change(session.session, session.epoch, lambda box: replaced(box, again))
        if self._parts.notifier is not None:
            self._parts.notifier.wake(session.session)
        return json_answer(_described(session.session, session.epoch, _only(box, message.id), whole=True))

    async def _found(self, request: web.Request) -> tuple[SessionState, Message]:
        name = check_session_name(request.match_info["session"])
        request[GRANT].check("manage", name)
        state = await self._parts.engine.state(name)
        if state is None:
            raise SessionNotFoundError(f"there is no session {name!r}")
        stored = await self._parts.outbox.load(name, state.epoch)
        return state, _only(stored.box, request.match_info["notification"])


def _state(request: web.Request) -> str | None:
    state = request.query.get("state")
    if state is not None and state not in get_args(State):
        raise RequestInvalidError(f"expected state to be one of {', '.join(get_args(State))}, got {state[:40]!r}")
    return state


def _in(box: Box | None, state: str | None) -> list[Message]:
    return [message for message in (box.messages if box else ()) if state in (None, message.state)]


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
        "created": _moment(message.created),
        "next_attempt": _moment(message.due) if message.state == "pending" else None,
        "cursor": str(Cursor(epoch, message.first)),
        "count": message.count,
        "attempts": [
            {"time": _moment(attempt.at), "seconds": attempt.seconds, "outcome": attempt.outcome}
            for attempt in message.attempts
        ],
    }
    return shown | ({"events": message.events} if whole else {})


def _moment(unix: float) -> str:
    return timestamp(datetime.fromtimestamp(unix, UTC))
