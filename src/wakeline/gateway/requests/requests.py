"""Asks, answers and closes requests for input, each by the request's next event in the log."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import msgspec
import structlog

from wakeline.background import wait_at_most
from wakeline.errors import (
    AlreadyResolvedError,
    EpochChangedError,
    RequestConflictError,
    RequestError,
    RequestNotFoundError,
    SessionClosedError,
    SessionDeletedError,
    SessionNotFoundError,
    UnavailableError,
)
from wakeline.events import INPUT_REQUESTED, compose, timestamp
from wakeline.gateway.delivery import Accept
from wakeline.gateway.inputs import Inputs, check_seen
from wakeline.gateway.log import Engine, NewSession, Publication, SessionState
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.requests import deciding, streamed
from wakeline.gateway.requests.asked import Answer, Asked, Claim
from wakeline.gateway.requests.askers import Askers, Learn
from wakeline.gateway.requests.deciding import Life, Next, Person, check_person, claiming, closing, decide, is_expired
from wakeline.gateway.requests.delivering import Deliveries
from wakeline.gateway.requests.description import described
from wakeline.gateway.requests.expiry import Expiry, expires
from wakeline.gateway.requests.room import MAX_OPEN, Room
from wakeline.gateway.requests.waiting import Waiting
from wakeline.gateway.sessions import Delivery, InputRequest, InputRequests, RunNames
from wakeline.gateway.settings import Settings

_LOST: Final = (EpochChangedError, SessionDeletedError, SessionNotFoundError)
_log = structlog.get_logger(__name__)


class Requests:
    """The requests for input of all sessions.

    Args:
        records: The records of requests.
        engine: The log.
        accept: The way into it.
        ownership: Decides which gateway closes the expired requests of a session.
        settings: The time of a lease.
        metrics: Count outcomes.
        names: The names of runs.
    """

    def __init__(
        self,
        records: InputRequests,
        engine: Engine,
        accept: Accept,
        ownership: Ownership,
        settings: Settings,
        metrics: Metrics,
        names: RunNames,
    ) -> None:
        self._records = records
        self._engine = engine
        self._accept = accept
        self._settings = settings
        self._metrics = metrics
        self._deliveries = Deliveries(records)
        finish = self._deliveries.finish
        self._expiry = Expiry(records, ownership, settings.lease, self.find, finish, shared=engine.shared)
        self._room = Room(records)
        self._askers = Askers(names)
        self._waiting = Waiting(engine)

    async def start(self, inputs: Inputs | None = None, learn: Learn | None = None) -> None:
        """Close the requests whose time is over, from now on.

        Args:
            inputs: Carry outcomes to the runs that asked; None without Temporal.
            learn: Asks Temporal which run a Temporal run belongs to; None without Temporal.
        """
        self._deliveries.inputs, self._askers.learn = inputs, learn
        self._expiry.start()

    async def stop(self) -> None:
        """Stop; requests are still closed by those who read or answer them."""
        await self._expiry.stop()
        await self._deliveries.stop()

    async def ask(
        self, session: str, asked: Asked, run: str | None, *, epoch: str | None = None, learns: bool = True
    ) -> InputRequest:
        """Open a request; return the one that there is if its id is known.

        Args:
            session: The session's name, which is created if it does not exist.
            asked: The request, which was checked.
            run: The name of the run that asks.
            epoch: Ask only in this life of the session; None for any.
            learns: Whether Temporal may be asked if another Temporal run has asked before. Default: True.

        Raises:
            EpochChangedError: The session does not live in this epoch.
            RequestConflictError: The session has another request of this id, or another run has asked it.
            LimitReachedError: The session has too many open requests.
            SessionClosedError: The session is closed.
            WakelineError: It cannot be appended now.
        """
        found = await self._records.find(session, asked.id)
        if found is None or await self._state(found) is None:
            state = await self._engine.state(session)
            if epoch is not None and (state is None or state.epoch != epoch):
                raise EpochChangedError(f"expected session {session!r} in epoch {epoch}")
            if state is None:
                state, _ = await self._engine.create_session(NewSession(session))
            if state.closed:
                raise SessionClosedError(f"session {session!r} is closed")
            new = InputRequest(
                session=session,
                epoch=state.epoch,
                asked=asked.content(),
                requested=asked.requested(),
                run=run,
                activity=asked.activity,
                deliver=asked.deliver,
            )
            await self._room.take(session, len(msgspec.json.encode(new)))
            found = await self._records.create(new)
        if not asked.is_content(found.asked, found.run, found.activity):
            raise RequestConflictError(f"expected the request {asked.id!r} as it was asked before, got another one")
        if not await self._askers.are_one(session, found.run, run, learns=learns):
            # An approval for one run is none for another one, also if both ask the same.
            raise RequestConflictError(f"expected a request of run {run}, {asked.id!r} was asked by {found.run}")
        found = await self._present(found)
        self._expiry.note(found)
        return found

    async def ask_from_stream(self, session: str, epoch: str | None, run: str, data: bytes) -> bool:
        """Open a request that a workflow has published in its stream; its run receives the outcome.

        Args:
            session: The session's name.
            epoch: Its life; None for any.
            run: The run that asks.
            data: The JSON that the workflow has published.

        Returns:
            False if it is not a request, or another one with a known id, or if it cancels a request of another asker.

        Raises:
            UnavailableError: It cannot be opened now, or its refusal cannot be accepted now.
        """
        if (cancelled := streamed.cancelled(data)) is not None:
            return await self._cancel_from_stream(session, epoch, run, cancelled)
        try:
            asked = streamed.asked(data)
            asked.check(identified=self._settings.asks)
            asked = msgspec.structs.replace(asked, deliver=asked.deliver or Delivery())
            # Its run is known: Temporal is not asked, because the follower would wait.
            await self.ask(session, asked, run, epoch=epoch, learns=False)
        except _LOST:
            raise
        except RequestError as error:
            _log.warning("a workflow asks for input in a way that is refused", session=session, error=str(error))
            if (id := streamed.id_of(data)) is not None:
                # Awaited: once the follower has gone on, no other gateway reads this request again.
                await self._deliveries.refuse(session, run, id, error)
            return False
        return True

    async def _cancel_from_stream(self, session: str, epoch: str | None, run: str, id: str) -> bool:
        with suppress(AlreadyResolvedError, RequestNotFoundError, SessionClosedError):
            if (await self._found(session, id, epoch)).run != run:
                _log.warning("a workflow cancels a request that it has not asked", session=session, request=id, run=run)
                return False
            await self.cancel(session, id, "")
        return True

    async def answer(
        self,
        session: str,
        id: str,
        answer: Answer,
        person: Person,
        *,
        life: Life | None = None,
        before: Callable[[InputRequest], Awaitable[None]] | None = None,
    ) -> InputRequest:
        """Append an answer, if it is the first; return the request after it.

        Args:
            session: The session's name.
            id: The request's id.
            answer: The answer, which was checked.
            person: Who gives it.
            life: Answer the request of this life only. Default: of any.
            before: Called with the request as the answer finds it.

        Raises:
            RequestNotFoundError: There is no such request.
            NotAllowedError: The request is for others, or of a reason that the token does not allow.
            AlreadyResolvedError: It is closed, and not by this answer.
            StaleError: The device has not seen what was published since.
            LimitReachedError: The session has too many bytes of outcomes that cannot be delivered now.
            WakelineError: The answer does not fit the request, or cannot be appended now.
        """
        request = await self._found(session, id)
        check_person(request, person)
        request = await self._present(request)  # so that `$input.requested` comes before the answer
        deciding.check_life(request, life)
        if before is not None:
            await before(request)
        is_first = True
        while True:
            now = timestamp()
            after = decide(request, answer, person, now)
            if after is None:
                return request
            if is_first:
                await check_seen(self._engine, request.session, request.epoch, answer.expect)
                if request.deliver is not None:  # its outcome is kept until it is delivered
                    await self._room.take(session, len(answer.json), number=0)
            is_first = False
            request = await self._append(request, after, now)

    async def claim(self, session: str, id: str, claim: Claim, person: Person) -> InputRequest:
        """Let a device run a tool, so that no other one does; return the request after it.

        Args:
            session: The session's name.
            id: The request's id.
            claim: The claim, which was checked.
            person: Who makes it.

        Raises:
            RequestNotFoundError: There is no such request.
            NotAllowedError: The request is for others, or of a reason that the token does not allow.
            AlreadyResolvedError: It is closed.
            ClaimedError: Another device runs it.
        """
        request = await self._found(session, id)
        check_person(request, person)
        request = await self._present(request)
        while (following := claiming(request, claim, person, now := timestamp())) is not None:
            request = await self._append(request, following, now)
        return request

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
        request = await self._present(await self._found(session, id))
        while request.resolved is None:
            now = timestamp()
            status: Any = "expired" if is_expired(request, now) else "cancelled"
            request = await self._append(request, closing(request, status, by if status == "cancelled" else None), now)
        if request.resolved.status == "resolved":
            raise AlreadyResolvedError(
                f"expected an open request, {id!r} was answered", described(request).get("outcome")
            )
        return request

    async def find(self, session: str, id: str, wait: float = 0.0, *, life: Life | None = None) -> InputRequest:
        """Return a request as it is now, or when it is closed.

        Args:
            session: The session's name.
            id: The request's id.
            wait: The longest wait for its closing, in seconds. Default: 0.
            life: Find the request of this life only. Default: of any.

        Raises:
            RequestNotFoundError: There is no such request.
        """
        ends = time.monotonic() + wait
        with self._waiting.changes(session, id) as changed:
            while True:
                changed.clear()
                request = await self._present(await self._found(session, id))
                deciding.check_life(request, life)
                left = ends - time.monotonic()
                if request.resolved is not None or left <= 0:
                    return request
                if (at := expires(request)) is not None:
                    left = min(left, max(0.0, at - time.time()) + 0.001)
                await wait_at_most(left, changed.wait())

    async def open(self, session: str, after: str = "", limit: int = MAX_OPEN) -> tuple[list[InputRequest], str | None]:
        """Return a page of the open requests, and where the next one begins: `InputRequests.page`."""
        found, following = await self._records.page(session, after, limit)
        requests: list[InputRequest] = []
        for request in found:
            with suppress(RequestNotFoundError, SessionClosedError, *_LOST):
                requests.append(await self._present(request))
        return [request for request in requests if request.resolved is None], following

    async def _found(self, session: str, id: str, epoch: str | None = None) -> InputRequest:
        request = await self._records.find(session, id)
        if request is None or epoch not in (None, request.epoch):
            raise RequestNotFoundError(f"there is no request {id!r} in session {session!r}")
        return request

    async def _present(self, request: InputRequest) -> InputRequest:
        """Return a request as the log has it now, and close it if its time is over."""
        state = await self._state(request)
        if state is None:
            raise RequestNotFoundError(f"the request {request.id!r} of session {request.session!r} is gone")
        if request.resolved is not None:
            return request
        if request.sequence == 0:
            asks = Next(INPUT_REQUESTED, request.requested)
            try:
                request = await self._append(request, asks, timestamp())
            except SessionClosedError:
                await self._records.finish(request)  # nobody has seen it, and nobody ever will
                raise
        while request.resolved is None:
            now = timestamp()
            is_behind = state.position is not None and state.position.next_sequence > request.sequence
            if not is_behind and not is_expired(request, now):
                return request
            # If the record is behind, the log has another event in this place, and the append returns that one.
            following = closing(request, "expired")
            try:
                request = await self._append(request, following, now)
            except SessionClosedError:
                return request.after(following.topic, msgspec.json.encode(following.data), now)
        return request

    async def _state(self, request: InputRequest) -> SessionState | None:
        """Return the state of a request's session; None if the request is left from an earlier life."""
        state = await self._engine.state(request.session, publisher=request.publisher)
        if state is None or (
            state.epoch != request.epoch and state.position is None
        ):  # a restored one has the publisher
            await self._records.forget(request.session, request.epoch)
            return None
        return state

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
                topic, there = page.events[0].topic, _known.decode(b'{"offset":0,' + page.events[0].body)
                data, now = bytes(there.data), there.time
            after = request.after(topic, data, now)
            await self._records.put(after)
            if after.resolved is not None:
                self._expiry.forget(after)
                await self._deliveries.finish(after)
        except _LOST:
            await self._records.forget(request.session, request.epoch)
            raise RequestNotFoundError(gone) from None
        except UnavailableError:
            self._expiry.check(request)  # it may be closed, and its run must receive the outcome
            raise
        if after.resolved is not None and not appended.duplicate:
            self._metrics.input_requests.labels(after.status).inc()
        return after


class _Known(msgspec.Struct):
    data: msgspec.Raw
    time: str


_known = msgspec.json.Decoder(_Known)
