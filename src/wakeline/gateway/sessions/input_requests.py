"""The records of a session's requests for input, each as far as the log has come.

The log decides: a request's events have one publisher and follow each other. The record is what that publisher has appended so
far, to be found by the request's id, and may be behind the log. An open request has its record under `requests.open/`, a closed
one under `requests/`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from wakeline.errors import RecordConflictError
from wakeline.events import INPUT_ANSWERED, INPUT_CLAIMED, INPUT_REQUESTED, INPUT_RESOLVED
from wakeline.gateway.sessions.remembered import LifeRecords, remember, remove
from wakeline.gateway.sessions.slices import each_decoded, key_hash, name_of, of_session
from wakeline.streams.requests import ANSWER_SIGNAL

RequestKind: TypeAlias = Literal["question", "tool"]
ClosedAs: TypeAlias = Literal["resolved", "cancelled", "expired"]

_OPEN: Final = "requests.open/"
_CLOSED: Final = "requests/"
_PAGE_BYTES: Final = 1024 * 1024


class Requested(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The data of `$input.requested`; PROTOCOL.md §14 describes the fields."""

    id: str
    reason: str
    kind: RequestKind = "question"
    message: str | None = None
    choices: list[str] | None = None
    response_schema: dict[str, Any] | None = None
    expires_at: str | None = None
    audience: list[str] | None = None
    digest: str | None = None
    tool_call_id: str | None = None
    metadata: dict[str, Any] | None = None
    needs: int = 1


class Claimed(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The data of `$input.claimed`: the device that runs a tool until this time."""

    request: str
    device: str
    until: str
    by: str | None = None


class Answered(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The data of `$input.answered`: the answer of one of several people."""

    request: str
    payload: msgspec.Raw
    by: str | None = None
    device: str | None = None


class Resolved(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The data of `$input.resolved`.

    Attributes:
        request: The request's id.
        status: How it was closed.
        payload: The answer; unset without one.
        by: The user who closed it; None if nobody did, or no token is required.
        device: The device that the answer came from.
        answers: Who gave the payload, where the request needs several people.
    """

    request: str
    status: ClosedAs
    payload: msgspec.Raw | UnsetType = UNSET
    by: str | None = None
    device: str | None = None
    answers: list[dict[str, str]] | None = None


class Delivery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The signal or update by which the run receives the outcome, as its only argument."""

    kind: Literal["signal", "update"] = "signal"
    name: Annotated[str, Meta(min_length=1, max_length=256)] = ANSWER_SIGNAL


class InputRequest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A request for input, as its events in the log make it.

    Attributes:
        session: The session's name.
        epoch: The session's life.
        asked: A digest of the request as it was asked: another one with the same id is refused.
        requested: The data of its `$input.requested`.
        run: The run that asks.
        activity: The activity that asks.
        deliver: How the run receives the outcome; None if it does not.
        asked_at: The time of its `$input.requested`; empty until that is appended. A later request of the same id, asked
            when this one was forgotten, has another one.
        sequence: The number of its events that this record includes.
        answers: The answers so far.
        claim: The latest claim; None if there was none.
        resolved: How it was closed; None while it is open.
        closed_at: The time of its `$input.resolved`; from then on it is remembered for a time.
    """

    session: str
    epoch: str
    asked: str
    requested: Requested
    run: str | None = None
    activity: str | None = None
    deliver: Delivery | None = None
    asked_at: str = ""
    sequence: int = 0
    answers: tuple[Answered, ...] = ()
    claim: Claimed | None = None
    resolved: Resolved | None = None
    closed_at: str = ""

    @property
    def id(self) -> str:
        """The request's key."""
        return self.requested.id

    @property
    def publisher(self) -> str:
        """The name under which its events are appended, each under the next sequence number."""
        return f"request:{key_hash(self.id)}"

    @property
    def status(self) -> str:
        """The status in answers: `open`, or how it was closed."""
        return "open" if self.resolved is None else self.resolved.status

    def after(self, topic: str, data: bytes, time: str) -> InputRequest:
        """Return the request after its next event, with the event's time."""
        following = msgspec.structs.replace(self, sequence=self.sequence + 1)
        match topic:
            case _ if topic == INPUT_REQUESTED:
                return msgspec.structs.replace(following, asked_at=time)
            case _ if topic == INPUT_CLAIMED:
                return msgspec.structs.replace(following, claim=_claimed.decode(data))
            case _ if topic == INPUT_ANSWERED:
                return msgspec.structs.replace(following, answers=(*self.answers, _answered.decode(data)))
            case _ if topic == INPUT_RESOLVED:
                return msgspec.structs.replace(following, resolved=_resolved.decode(data), closed_at=time)
        raise ValueError(f"expected an event of a request for input, got {topic!r}")


_claimed = msgspec.json.Decoder(Claimed)
_answered = msgspec.json.Decoder(Answered)
_resolved = msgspec.json.Decoder(Resolved)
_request = msgspec.json.Decoder(InputRequest)


class InputRequests(LifeRecords):
    """Reads and writes the records of requests under compare-and-set.

    Args:
        records: Stores them.
    """

    prefixes = (_OPEN, _CLOSED)

    async def find(self, session: str, id: str) -> InputRequest | None:
        """Return a request as it was last recorded; None if there is none."""
        name = name_of(session, id)
        found = await self._records.get_records([_OPEN + name, _CLOSED + name])
        record = found.get(_CLOSED + name) or found.get(_OPEN + name)
        return None if record is None else _request.decode(record.value)

    async def create(self, request: InputRequest) -> InputRequest:
        """Write a new request, unless there is one of its id; return the one that there is then.

        Raises:
            RecordTooLargeError: It is too large.
        """
        is_new = False
        with suppress(RecordConflictError):
            await self._records.put_record(_OPEN + _name_of(request), msgspec.json.encode(request), revision=0)
            is_new = True
        found = await self.find(request.session, request.id)
        if is_new and found is not None and found.resolved is not None:
            # Another gateway closed it and removed its open record, which was then created again.
            await self.finish(found)
        return found or request

    async def put(self, request: InputRequest) -> None:
        """Record how far a request has come; a record that has come further stays."""
        if request.resolved is not None:
            with suppress(RecordConflictError):
                await self._records.put_record(_CLOSED + _name_of(request), msgspec.json.encode(request), revision=0)
            if request.deliver is None:
                return  # its open record is removed at once
        key = _OPEN + _name_of(request)
        while (record := await self._records.get_record(key)) is not None:
            if _request.decode(record.value).sequence >= request.sequence:
                return
            with suppress(RecordConflictError):
                await self._records.put_record(key, msgspec.json.encode(request), revision=record.revision)
                return

    async def finish(self, request: InputRequest) -> None:
        """Remove the open record of a request that is closed; its outcome is remembered for a time."""
        await remember(self._records, _CLOSED + _name_of(request), request.closed_at)
        await remove(self._records, _OPEN + _name_of(request))

    async def open(self) -> AsyncIterator[InputRequest]:
        """Yield the requests of all sessions whose open record is there, read in slices."""
        async for _, request in each_decoded(self._records, _OPEN, _request):
            yield request

    async def count_open(self, session: str) -> tuple[int, int]:
        """Return how many open records a session has, and their bytes."""
        return await self._records.count_records(_OPEN + of_session(session))

    async def page(self, session: str, after: str, limit: int) -> tuple[list[InputRequest], str | None]:
        """Return a page of the requests of a session whose open record is there.

        Args:
            session: The session's name.
            after: The hash of the id that the page begins after; empty for the first page.
            limit: The most requests; the page also ends with the one that makes its records exceed `_PAGE_BYTES`.

        Returns:
            The requests in the order of hashes, and the hash that the next page begins after; None at the end.
        """
        prefix, size = _OPEN + of_session(session), 0
        found: list[InputRequest] = []
        last = after
        async for record, request in each_decoded(self._records, prefix, _request, prefix + after):
            if len(found) == limit or size > _PAGE_BYTES:
                return found, last
            size += len(record.value)
            if request.resolved is None:  # otherwise, its outcome is on its way
                found.append(request)
            last = record.key.removeprefix(prefix)
        return found, None


def _name_of(request: InputRequest) -> str:
    return name_of(request.session, request.id)
