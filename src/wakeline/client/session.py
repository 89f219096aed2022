"""`Session`: every operation on one session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, Unpack, overload
from uuid import uuid4

import msgspec

from wakeline.client import inputs, transfer
from wakeline.client.errors import EventDataError
from wakeline.client.http import Http, session_path
from wakeline.client.live_view import CompactView, LiveView
from wakeline.client.options import ExactlyOnce, PageReading, Reading, reader_query, topics_query
from wakeline.client.requests import Answering
from wakeline.client.stream import EventStream
from wakeline.client.structs import Device, InputOutcome, Page, Published, Retention, SessionEvent, SessionState
from wakeline.client.values import Values, encode, encode_events
from wakeline.client.view import View, decode_event
from wakeline.durations import seconds_of
from wakeline.errors import RequestInvalidError, UnavailableError, WakelineError
from wakeline.events import Cursor

if TYPE_CHECKING:
    from temporalio.converter import DataConverter

T = TypeVar("T")
_JSON: Final = {"Content-Type": "application/json"}


class _WirePage(msgspec.Struct):
    events: list[msgspec.Raw]
    epoch: str
    cursor: str
    up_to_date: bool
    settled: bool
    closed: bool
    previous: str | None = None


class _Devices(msgspec.Struct):
    devices: list[Device]


class Session(Answering):
    """A handle on one session, whether or not it exists; `SessionClient.session` returns one.

    Every method raises `RefusedError`, which is also of the code's class in `wakeline.errors`, if the gateway refuses, and
    `UnavailableError` if it cannot be reached.

    Attributes:
        name: The session's name.
    """

    def __init__(self, http: Http, name: str, converter: DataConverter | None, retry_timeout: timedelta) -> None:
        """See `SessionClient.session`."""
        self.name = name
        self._http = http
        self._converter = converter
        self._retry_seconds = seconds_of(retry_timeout, "retry_timeout")
        self._path = session_path(name)

    @overload
    def events(self, *, type: type[T], **how: Unpack[Reading]) -> EventStream[T | dict[str, Any]]: ...
    @overload
    def events(self, *, type: object = ..., **how: Unpack[Reading]) -> EventStream[Any]: ...

    def events(
        self,
        *,
        from_: str = "beginning",
        topics: str | Iterable[str] | None = None,
        until: Literal["settled", "never"] = "never",
        wait_for_start: bool = False,
        type: Any = None,
        device: str | None = None,
        on_lost: Callable[[WakelineError], None] | None = None,
        on_resumed: Callable[[], None] | None = None,
    ) -> EventStream[Any]:
        """Return a stream of every event from a position on, once, in order, across disconnects.

        A gateway that cannot be reached is retried for ever, with pauses of up to 5 s. The stream ends when the session is
        closed or, with `until="settled"`, settled, and every event was read. It raises when the session is deleted.

        Args:
            from_: `beginning`, `now`, a cursor, `tail:N` (the last N events), `time:T` (RFC 3339), or `device` (after the
                last event that `device` acknowledged).
            topics: One topic or several; `order.*` matches all that begin with `order.`. By default all of the publishers'
                topics and Wakeline's own. With `topics`, Wakeline's own (`$run.closed`) must be named, except `$gap`.
            until: `settled`: end when no run of the session is open and every event was delivered.
            wait_for_start: If neither a session nor a workflow has this name, wait until one has. The token must name the
                session without `*`, or may manage it.
            type: The type of `data`: a dataclass, a msgspec Struct, or another type that msgspec can decode. The data of
                Wakeline's own topics stays a dict.
            device: This device's id, under which the gateway stores its positions.
            on_lost: Called with the error when the connection is lost, or cannot be made.
            on_resumed: Called when the connection is made again.

        Raises:
            EventDataError: (while iterating) An event's data is not of `type`. Iteration may continue after it.
            SessionNotFoundError: (while iterating) Neither a session nor a workflow has this name.
            EpochChangedError: (while iterating) The session was deleted and created again.
        """
        query = {"until": until, **topics_query(topics), **reader_query(device, wait_for_start=wait_for_start)}
        return EventStream(
            self._http,
            f"{self._path}/events",
            query,
            view=View(from_, filtered=topics is not None),
            values=Values(type, self._converter),
            on_lost=on_lost,
            on_resumed=on_resumed,
        )

    @overload
    def view(self, *, type: type[T], **how: Unpack[Reading]) -> LiveView[T | dict[str, Any]]: ...
    @overload
    def view(self, *, type: object = ..., **how: Unpack[Reading]) -> LiveView[Any]: ...

    def view(
        self,
        *,
        from_: str = "beginning",
        topics: str | Iterable[str] | None = None,
        until: Literal["settled", "never"] = "never",
        wait_for_start: bool = False,
        type: Any = None,
        device: str | None = None,
        on_lost: Callable[[WakelineError], None] | None = None,
        on_resumed: Callable[[], None] | None = None,
    ) -> LiveView[Any]:
        """Return the session's state, kept up to date, as an iterator of its changes.

        It begins with the compact form: messages with their whole values, the latest event of each key, and every other
        event. Events that a later attempt supersedes are removed.

        Args:
            from_: As for `events`. A view that begins later than `beginning` has only the changes since then.
            topics: As for `events`.
            until: As for `events`.
            wait_for_start: As for `events`.
            type: The type of messages' values and of other events' data.
            device: As for `events`.
            on_lost: As for `events`.
            on_resumed: As for `events`.

        Raises:
            EventDataError: (while iterating) An event's data is not of `type`. Iteration may continue after it.
            SessionNotFoundError: (while iterating) Neither a session nor a workflow has this name.
            EpochChangedError: (while iterating) The session was deleted and created again.
        """
        query = {"view": "compact", "until": until, **topics_query(topics)}
        stream: EventStream[Any] = EventStream(
            self._http,
            f"{self._path}/events",
            {**query, **reader_query(device, wait_for_start=wait_for_start)},
            view=CompactView(from_, filtered=topics is not None),
            values=Values(),
            on_lost=on_lost,
            on_resumed=on_resumed,
        )
        return LiveView(stream, Values(type, self._converter), type)

    @overload
    async def page(self, *, type: type[T], **how: Unpack[PageReading]) -> Page[T | dict[str, Any]]: ...
    @overload
    async def page(self, *, type: object = ..., **how: Unpack[PageReading]) -> Page[Any]: ...

    async def page(
        self,
        *,
        before: str | None = None,
        from_: str | None = None,
        topics: str | Iterable[str] | None = None,
        limit: int | None = None,
        wait: float = 0.0,
        view: Literal["raw", "compact"] = "raw",
        type: Any = None,
    ) -> Page[Any]:
        """Read events at once: forwards from a position, or backwards for history views.

        Args:
            before: Read backwards: the last `limit` events before `now` or a cursor. Pass `page.previous` for the next call
                until it is None, also after an empty page.
            from_: Read forwards: as for `events`, `beginning` by default. Pass `page.cursor` for the next call until the
                page is `up_to_date`, also after an empty page.
            topics: As for `events`.
            limit: The most events, 1 to 10000; 1000 by default.
            wait: Forwards: seconds to wait for the first event, 0 to 60; 0 by default.
            view: `compact`: the whole session in its compact form; not with `before`, `limit` or `wait`.
            type: As for `events`.

        Raises:
            EventDataError: An event's data is not of `type`.
        """
        given = {"before": before, "from": from_, "wait": f"{wait:g}" if wait else None}
        given |= {"limit": None if limit is None else str(limit), "view": None if view == "raw" else view}
        query = {**topics_query(topics), **{k: v for k, v in given.items() if v is not None}}
        wire = await self._http.call("GET", f"{self._path}/events", _WirePage, query=query, wait=wait)
        values = Values(type, self._converter)
        arrived = [
            (event, str(Cursor(wire.epoch, event.offset + 1)), raw)
            for raw in map(bytes, wire.events)
            for event in [decode_event(raw)]
        ]
        events: list[SessionEvent[Any]] = []
        for event in await values.events(arrived):
            if isinstance(event, EventDataError):
                raise event
            events.append(event)
        return Page(
            events=events,
            cursor=wire.cursor,
            previous=wire.previous,
            up_to_date=wire.up_to_date,
            settled=wire.settled,
            closed=wire.closed,
        )

    async def publish(self, topic: str, data: Any = None, **exactly_once: Unpack[ExactlyOnce]) -> Published:
        """Append one event; return when it is durable. Further arguments: see `publish_many`.

        Args:
            topic: The label to publish under.
            data: A value that msgspec can encode as JSON.
        """
        return await self.publish_many([(topic, data)], **exactly_once)

    async def publish_many(
        self,
        events: Sequence[tuple[str, Any] | Mapping[str, Any]],
        *,
        publisher: str | None = None,
        attempt: int = 1,
        sequence: int | None = None,
    ) -> Published:
        """Append a batch, all of it or none; return when it is durable.

        With `publisher` and `sequence` the append is idempotent: if the gateway cannot be reached or the outcome is
        unknown, it is retried for up to the client's `retry_timeout`, and never appended twice. Otherwise it is sent once.

        Args:
            events: Each as `(topic, data)`, or as `{"topic": …, "data": …, "run"?: …, "activity"?: …}`.
            publisher: A name for this source of events.
            attempt: The attempt of the publisher, from 1; the gateway refuses earlier attempts from then on.
            sequence: The number of events that this publisher has appended before, in this attempt.

        Raises:
            SequenceGapError: Events before these are missing; `expected` is the right sequence.
            AttemptFencedError: A later attempt has appended.
            SessionClosedError: The session is closed.
            UnavailableError: The gateway cannot be reached, and the batch may or may not have been appended.
        """
        if (publisher is None) != (sequence is None):
            raise RequestInvalidError(
                f"expected publisher and sequence together, got {publisher!r} and {sequence!r}: pass both or neither"
            )
        headers = dict(_JSON)
        if publisher is not None:
            headers["Wakeline-Publisher"] = publisher
            headers["Wakeline-Attempt"] = str(attempt)
            headers["Wakeline-Sequence"] = str(sequence)
        batch = [{"topic": e[0], "data": e[1]} if isinstance(e, tuple) else dict(e) for e in events]
        body = encode_events(batch)
        # A stream, because aiohttp would write large bytes at once.
        how: dict[str, Any] = {"headers": headers, "body": lambda: BytesIO(body)}
        call = partial(self._http.call, "POST", f"{self._path}/events", Published, **how)
        return await inputs.repeated(call, 0.0 if publisher is None else self._retry_seconds)

    async def send(
        self,
        name: str = "",
        args: Sequence[Any] = (),
        *,
        kind: Literal["signal", "update", "cancel", "terminate", "start"] = "update",
        id: str | None = None,
        run: str | None = None,
        start: str | None = None,
        device: str | None = None,
        expect: int | None = None,
        wait: timedelta | None = None,
        on_lost: Callable[[WakelineError], None] | None = None,
    ) -> InputOutcome:
        """Send an input to the session's run, once; return its outcome, also if the run rejected it.

        It is repeated until the outcome is known; an unreachable gateway is retried for up to `retry_timeout`.

        Args:
            name: The signal's or update's name; of a start, the name of the gateway's rule, if the session has several.
            args: A list of its arguments, each a value that msgspec can encode as JSON.
            kind: What is sent; `cancel` and `terminate` end the run, and have no name; `start` starts the workflow.
            id: The input's key. By default a new one; give one that is stored to send the same input after a restart.
            run: The run that it is for; by default the session's open run.
            start: The rule by which an update starts the workflow if no run is open.
            device: The id of this device, for `$input.accepted`.
            expect: The offset of the last event that its user has seen; a later one that counts refuses the input.
            wait: The longest wait for the outcome; its status is `accepted` then. By default there is no limit.
            on_lost: Called with the reason when the gateway is retried.

        Raises:
            InputConflictError: Another input of the session has this key.
            RunClosedError: The run has ended.
            StaleError: An event that counts came after `expect`.
            UnavailableError: The gateway cannot be reached, and may have accepted the input; a note names its id.
        """
        given: dict[str, Any] = {"name": name or None, "args": inputs.listed(args) or None, "run": run, "start": start}
        given |= {"device": device, "expect": expect}
        asked = {"id": id or str(uuid4()), "kind": kind, **{k: v for k, v in given.items() if v is not None}}
        try:
            return await inputs.until_known(
                self._http,
                f"{self._path}/inputs",
                asked,
                InputOutcome,
                lambda outcome: outcome.status != "accepted",
                wait_seconds=None if wait is None else seconds_of(wait, "wait"),
                retry_seconds=self._retry_seconds,
                on_lost=on_lost,
            )
        except UnavailableError as error:
            error.add_note(f"the input's id: {asked['id']}")
            raise

    async def state(self) -> SessionState:
        """Return the state of the session."""
        return await self._http.call("GET", self._path, SessionState)

    async def create(self, *, retention: Retention | None = None) -> SessionState:
        """Create the session, or change its retention if it exists.

        Args:
            retention: The limits of its log; the gateway's settings by default.
        """
        asked = {} if retention is None else {"retention": retention}
        return await self._http.call("PUT", self._path, SessionState, headers=_JSON, body=lambda: encode(asked))

    async def close(self) -> None:
        """Close the session, so that it accepts no more events; a repeated call changes nothing."""
        await self._http.do("POST", f"{self._path}/close")

    async def delete(self) -> None:
        """Erase the session: events, positions and publishers' sequences.

        A session of this name may be created again, under another epoch.
        """
        await self._http.do("DELETE", self._path)

    async def acknowledge(self, position: str | SessionEvent[Any], *, device: str, everywhere: bool = False) -> Device:
        """Record that a device has seen all events up to a position; return when that is durable.

        Args:
            position: An event, or a cursor. A position before the recorded one changes nothing.
            device: The device's id.
            everywhere: Whether the user's other devices have seen them too.
        """
        asked = {"seen": position if isinstance(position, str) else position.cursor, "everywhere": everywhere}
        path, body = session_path(self.name, "devices", device), encode(asked)
        return await self._http.call("PUT", path, Device, headers=_JSON, body=lambda: body)

    async def devices(self) -> list[Device]:
        """Return the user's devices in this session; all users', with a token that may `manage`."""
        return (await self._http.call("GET", f"{self._path}/devices", _Devices)).devices

    async def forget_device(self, device: str) -> None:
        """Forget a device and its positions."""
        await self._http.do("DELETE", session_path(self.name, "devices", device))

    async def export(self, to: str | PathLike[str], *, on_progress: Callable[[int], None] | None = None) -> int:
        """Write the session to a file, one JSON object a line; return the next offset.

        Args:
            to: The file, which is created or replaced only when the export is complete.
            on_progress: Called with the number of lines that have arrived so far.

        Raises:
            TransferError: The export was cut short.
        """
        return await transfer.export(self._http, f"{self._path}/export", Path(to), on_progress)

    async def import_(
        self, source: str | PathLike[str], *, on_progress: Callable[[int], None] | None = None
    ) -> SessionState:
        """Create this session from an exported file, all of it or nothing.

        The offsets stay the same; the epoch is a new one.

        Args:
            source: The file.
            on_progress: Called with the number of lines that were sent so far.

        Raises:
            SessionExistsError: A session of this name exists already.
        """
        return await transfer.import_(self._http, f"{self._path}/import", Path(source), on_progress)
