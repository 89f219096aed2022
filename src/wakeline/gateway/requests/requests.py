"""Asks, answers and closes requests for input, each by the request's next event in the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import msgspec
import structlog

from wakeline.background import cancel_all
from wakeline.errors import (
    AlreadyResolvedError,
    EpochChangedError,
    RequestConflictError,
    RequestNotFoundError,
    SessionClosedError,
    SessionDeletedError,
    SessionNotFoundError,
    StaleError,
    UnavailableError,
    WakelineError,
)
from wakeline.events import INPUT_REQUESTED, Event, compose, timestamp
from wakeline.gateway.delivery import Accept
from wakeline.gateway.log import Change, Engine, Publication
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.requests.asked import Answer, Asked
from wakeline.gateway.requests.deciding import Next, Person, check_person, closing, decide, is_expired
from wakeline.gateway.runtime import supervised
from wakeline.gateway.sessions import InputRequest, InputRequests
from wakeline.gateway.settings import Settings

_LOST: Final = (EpochChangedError, SessionDeletedError, SessionNotFoundError)
_AGAIN: Final = 1.0
"""Seconds until a request that could not be closed is tried again."""

_log = structlog.get_logger(__name__)


class _Published:
    """The topics that publishers and workflows use: all but Wakeline's own."""

    def __contains__(self, topic: object) -> bool:
        return isinstance(topic, str) and not topic.startswith("$")


class Requests:
    """The requests for input of all sessions.

    Args:
        records: The records of requests.
        engine: The log.
        accept: The way into it.
        ownership: Decides which gateway closes the expired requests of a session.
        settings: The time of a lease.
        metrics: Count outcomes.
    """

    def __init__(
        self,
        records: InputRequests,
        engine: Engine,
        accept: Accept,
        ownership: Ownership,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._records = records
        self._engine = engine
        self._accept = accept
        self._ownership = ownership
        self._settings = settings
        self._metrics = metrics
        self._deadlines: dict[tuple[str, str], float] = {}  # Unix time, by session and id
        self._changed = asyncio.Event()
        self._expiring: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Close the requests whose time is over, from now on."""
        self._expiring = supervised("requests", self._expire)

    async def stop(self) -> None:
        """Stop; requests are still closed by those who read or answer them."""
        await cancel_all(self._expiring)

    async def ask(self, session: str, asked: Asked, run: str | None) -> InputRequest:
        """Open a request; return the one that there is if its id is known.

        Args:
            session: The session's name, which is created if it does not exist.
            asked: The request, which was checked.
            run: The name of the run that asks.

        Raises:
            RequestConflictError: The session has another request of this id.
            SessionClosedError: The session is closed.
            WakelineError: It cannot be appended now.
        """
        content = asked.content()
        found = await self._records.find(session, asked.id)
        if found is None:
            state = await self._engine.state(session)
            if state is None:
                state, _ = await self._engine.create_session(session)
            if state.closed:
                raise SessionClosedError(f"session {session!r} is closed")
            new = InputRequest(
                session=session,
                epoch=state.epoch,
                asked=content,
                requested=asked.requested(),
                run=run,
                activity=asked.activity,
            )
            found = await self._records.create(new)
        if found.asked != content:
            raise RequestConflictError(f"expected the request {asked.id!r} as it was asked before, got another one")
        found = await self._present(found)
        self._note(found)
        return found

    async def answer(self, session: str, id: str, answer: Answer, person: Person) -> InputRequest:
        """Append an answer, if it is the first; return the request after it.

        Args:
            session: The session's name.
            id: The request's id.
            answer: The answer, which was checked.
            person: Who gives it, and may give answers to requests of this reason.

        Raises:
            RequestNotFoundError: There is no such request.
            NotAllowedError: The request is for others.
            AlreadyResolvedError: It is closed, and not by this answer.
            StaleError: The device has not seen what was published since.
            WakelineError: The answer does not fit the request, or cannot be appended now.
        """
        request = await self._found(session, id)
        check_person(request, person)
        is_first = True
        while True:
            now = timestamp()
            after = decide(request, answer, person, now)
            if after is None:
                return request
            if is_first:
                await self._check_seen(request, answer)
            is_first = False
            request = await self._append(request, after, now)

    async def cancel(self, session: str, id: str, by: str) -> InputRequest:
        """Close a request without an answer, for its asker; return the request after it.

        Args:
            session: The session's name.
            id: The request's id.
            by: The user who cancels it.

        Raises:
            RequestNotFoundError: There is no such request.
            AlreadyResolvedError: It was answered.
        """
        request = await self._found(session, id)
        while request.resolved is None:
            now = timestamp()
            status: Any = "expired" if is_expired(request, now) else "cancelled"
            request = await self._append(request, closing(request, status, by if status == "cancelled" else None), now)
        if request.resolved.status == "resolved":
            raise AlreadyResolvedError(
                f"expected an open request, {id!r} was answered", described(request).get("outcome")
            )
        return request

    async def find(self, session: str, id: str, wait: float = 0.0) -> InputRequest:
        """Return a request as it is now, or when it is closed.

        Args:
            session: The session's name.
            id: The request's id.
            wait: The longest wait for its closing, in seconds. Default: 0.

        Raises:
            RequestNotFoundError: There is no such request.
        """
        ends = time.monotonic() + wait
        changed = asyncio.Event()

        def listen(_: str, __: str, events: Sequence[Event], changes: Sequence[Change]) -> None:
            if changes or any(event.topic.startswith("$input.") for event in events):
                changed.set()

        ignore = self._engine.subscribe(session, listen)
        try:
            while True:
                changed.clear()
                request = await self._present(await self._found(session, id))
                left = ends - time.monotonic()
                if request.resolved is not None or left <= 0:
                    return request
                if (expires := _expires(request)) is not None:
                    left = min(left, max(0.0, expires - time.time()) + 0.001)
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await changed.wait()
        finally:
            ignore()

    async def open(self, session: str) -> list[InputRequest]:
        """Return the open requests of a session, in the order of their ids' hashes."""
        requests: list[InputRequest] = []
        for request in await self._records.open(session):
            with suppress(RequestNotFoundError, SessionClosedError, *_LOST):
                requests.append(await self._present(request))
        return [request for request in requests if request.resolved is None]

    async def reason_of(self, session: str, id: str) -> str:
        """Return the reason of a request.

        Raises:
            RequestNotFoundError: There is no such request.
        """
        return (await self._found(session, id)).requested.reason

    async def _found(self, session: str, id: str) -> InputRequest:
        request = await self._records.find(session, id)
        if request is None:
            raise RequestNotFoundError(f"there is no request {id!r} in session {session!r}")
        return request

    async def _present(self, request: InputRequest) -> InputRequest:
        """Return a request as the log has it now, and close it if its time is over."""
        if request.resolved is not None:
            return request
        if request.sequence == 0:
            asks = Next(INPUT_REQUESTED, request.requested)
            request = await self._append(request, asks, timestamp())
        position = await self._engine.position(request.session, request.publisher)
        while request.resolved is None:
            now = timestamp()
            is_behind = position is not None and position.next_sequence > request.sequence
            if not is_behind and not is_expired(request, now):
                return request
            # If the record is behind, the log has another event in this place, and the append returns that one.
            following = closing(request, "expired")
            try:
                request = await self._append(request, following, now)
            except SessionClosedError:
                return request.after(following.topic, msgspec.json.encode(following.data))
        return request

    async def _append(self, request: InputRequest, following: Next, now: str) -> InputRequest:
        """Append the next event of a request, unless the log has one; return the request after it.

        Raises:
            RequestNotFoundError: The session was deleted, or the event was removed by retention.
        """
        data = msgspec.json.encode(following.data)
        event = compose(following.topic, data, time=now, run=request.run, activity=request.activity)
        publication = Publication(request.publisher, sequence=request.sequence)
        gone = f"the request {request.id!r} of session {request.session!r} is gone"
        try:
            appended = await self._accept.append(request.session, (event,), publication, epoch=request.epoch)
            topic = following.topic
            if appended.duplicate:
                at = appended.first_offset
                page = await self._engine.read(request.session, at, before=at + 1, epoch=request.epoch)
                if not page.events:
                    await self._records.finish(request)
                    raise RequestNotFoundError(gone)
                topic, data = page.events[0].topic, bytes(_data.decode(b'{"offset":0,' + page.events[0].body).data)
        except _LOST:
            await self._records.forget(request.session, request.epoch)
            raise RequestNotFoundError(gone) from None
        after = request.after(topic, data)
        await self._records.put(after)
        if after.resolved is not None:
            await self._records.finish(after)
            self._deadlines.pop((after.session, after.id), None)
            if not appended.duplicate:
                self._metrics.input_requests.labels(after.status).inc()
        return after

    async def _check_seen(self, request: InputRequest, answer: Answer) -> None:
        """Raise if something was published after the last event that the device has seen."""
        if answer.expect is None:
            return
        offset = answer.expect + 1
        while True:
            state = await self._engine.state(request.session)
            if state is None or offset >= state.next_offset:
                return
            page = await self._engine.read(
                request.session, offset, before=state.next_offset, topics=_Published(), epoch=request.epoch
            )
            if page.events:
                raise StaleError(
                    f"expected a device that has seen the session's events, {page.events[0].offset} came after"
                    f" {answer.expect}",
                    offset=page.events[0].offset,
                )
            offset = page.next_offset

    def _note(self, request: InputRequest) -> None:
        """Remember when a request expires."""
        expires = _expires(request)
        if request.resolved is None and expires is not None:
            self._deadlines[request.session, request.id] = expires
            self._changed.set()

    async def _expire(self) -> None:
        """Close requests when their time is over, those of ended gateways as well."""
        read_at = 0.0
        while True:
            if not read_at or (self._engine.shared and time.monotonic() >= read_at + self._settings.lease):
                for request in await self._records.open():
                    if self._ownership.owns(request.session):
                        self._note(request)
                read_at = time.monotonic()
            for (session, id), expires in list(self._deadlines.items()):
                if expires <= time.time():
                    await self._expire_one(session, id)
            self._changed.clear()
            pause = min(self._deadlines.values(), default=time.time() + 3600) - time.time()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.001, min(pause, self._settings.lease))):
                    await self._changed.wait()

    async def _expire_one(self, session: str, id: str) -> None:
        again: float | None = None
        try:
            request = await self.find(session, id)
            again = _AGAIN if request.resolved is None else None  # the clock was set back
        except UnavailableError as error:
            _log.warning("a request cannot be closed now", session=session, error=error.message)
            again = _AGAIN
        except WakelineError:
            pass  # it is gone
        if again is None:
            self._deadlines.pop((session, id), None)
        else:
            self._deadlines[session, id] = time.time() + again


class _Data(msgspec.Struct):
    data: msgspec.Raw


_data = msgspec.json.Decoder(_Data)


def described(request: InputRequest) -> dict[str, Any]:
    """Return a request as the routes answer with it."""
    shown: dict[str, Any] = {**msgspec.to_builtins(request.requested), "status": request.status}
    if request.answers:
        shown["answers"] = [msgspec.structs.asdict(each) for each in request.answers]
    if request.resolved is not None:
        shown["outcome"] = request.resolved
    return shown


def _expires(request: InputRequest) -> float | None:
    at = request.requested.expires_at
    return None if at is None else datetime.fromisoformat(at).timestamp()
