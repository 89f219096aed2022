"""One session: everything that can be done with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, Unpack, overload

import msgspec

from wakeline.client import transfer
from wakeline.client.errors import EventDataError
from wakeline.client.http import Http, session_path
from wakeline.client.live_view import CompactView, LiveView
from wakeline.client.options import ExactlyOnce, PageReading, Reading, Viewing
from wakeline.client.stream import EventStream
from wakeline.client.structs import Device, Page, Published, Retention, SessionEvent, SessionState
from wakeline.client.values import Values, encode, encode_events
from wakeline.client.view import View, decode_event
from wakeline.errors import LimitReachedError, RequestInvalidError, UnavailableError, WakelineError
from wakeline.events import Cursor
from wakeline.retry import Backoff

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


class Session:
    """A handle on one session; `SessionClient.session` makes one. Making it asks nothing, so the session need not be there.

    Every method raises `RefusedError` when the gateway refuses, as the class of the code in `wakeline.errors` too, and
    `UnavailableError` when it cannot be reached.

    Attributes:
        name: The session's name.
    """

    def __init__(self, http: Http, name: str, converter: DataConverter | None, retry_timeout: timedelta) -> None:
        """See `SessionClient.session`."""
        self.name = name
        self._http = http
        self._converter = converter
        self._retry_seconds = retry_timeout.total_seconds()
        self._path = session_path(name)

    @overload
    def events(self, **how: Unpack[Reading]) -> EventStream[Any]: ...
    @overload
    def events(self, *, type: type[T], **how: Unpack[Reading]) -> EventStream[T | dict[str, Any]]: ...
    @overload
    def events(self, *, type: object, **how: Unpack[Reading]) -> EventStream[Any]: ...

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
        """Every event from a position on, once, in order, through any disconnect.

        A gateway that cannot be reached is tried again, with growing pauses and for ever. The stream ends when the session is
        closed and read to its end or, with `until="settled"`, settled; it raises when the session is deleted.

        Args:
            from_: `beginning`, `now`, a cursor, `tail:N` (the last N), `time:T` (RFC 3339), or `device` (after the
                last event that `device` acknowledged).
            topics: Only these, one or several; `order.*` stands for all that begin so. Wakeline's own (`$run.closed`)
                come only if named, except `$gap`, which comes always.
            until: `settled`: end when no run of the session is open and everything was delivered.
            wait_for_start: If there is neither a session nor a workflow of this name, wait until there is; for tokens that name
                the session, or may manage it.
            type: What `data` is read as: a dataclass, a msgspec Struct, or whatever else msgspec can read. The data of
                Wakeline's own topics stays a dict.
            device: This device's id: the gateway keeps its positions.
            on_lost: Called with the reason when the connection is lost, or cannot be made.
            on_resumed: Called when it is there again.

        Raises:
            EventDataError: (while iterating) An event's data is not of `type`. Iteration may go on after it.
            SessionNotFoundError: (while iterating) Neither a session nor a workflow has this name.
            EpochChangedError: (while iterating) The session was deleted and created again.
        """
        query = {"until": until, **_topics(topics), **_asked(device, wait_for_start=wait_for_start)}
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
    def view(self, **how: Unpack[Viewing]) -> LiveView[Any]: ...
    @overload
    def view(self, *, type: type[T], **how: Unpack[Viewing]) -> LiveView[T | dict[str, Any]]: ...
    @overload
    def view(self, *, type: object, **how: Unpack[Viewing]) -> LiveView[Any]: ...

    def view(
        self,
        *,
        topics: str | Iterable[str] | None = None,
        until: Literal["settled", "never"] = "never",
        wait_for_start: bool = False,
        type: Any = None,
        device: str | None = None,
        on_lost: Callable[[WakelineError], None] | None = None,
        on_resumed: Callable[[], None] | None = None,
    ) -> LiveView[Any]:
        """What the session is, kept up to date, and each change of it.

        It begins with the compact form: messages with their whole values, the latest of each key, and every other event.
        What a later attempt supersedes is taken out.

        Args:
            topics: As for `events`.
            until: As for `events`.
            wait_for_start: As for `events`.
            type: What messages' values and other events' data are read as.
            device: As for `events`.
            on_lost: As for `events`.
            on_resumed: As for `events`.

        Raises:
            EventDataError: (while iterating) An event's data is not of `type`. Iteration may go on after it.
            SessionNotFoundError: (while iterating) Neither a session nor a workflow has this name.
            EpochChangedError: (while iterating) The session was deleted and created again.
        """
        query = {"view": "compact", "until": until, **_topics(topics)}
        stream: EventStream[Any] = EventStream(
            self._http,
            f"{self._path}/events",
            {**query, **_asked(device, wait_for_start=wait_for_start)},
            view=CompactView("beginning", filtered=topics is not None),
            values=Values(),
            on_lost=on_lost,
            on_resumed=on_resumed,
        )
        return LiveView(stream, Values(type, self._converter), type)

    @overload
    async def page(self, **how: Unpack[PageReading]) -> Page[Any]: ...
    @overload
    async def page(self, *, type: type[T], **how: Unpack[PageReading]) -> Page[T | dict[str, Any]]: ...
    @overload
    async def page(self, *, type: object, **how: Unpack[PageReading]) -> Page[Any]: ...

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
        """Some events at once: forwards from a position, or backwards for history views.

        Args:
            before: Backwards: `now` or a cursor; the last `limit` events before it. `page.previous` leads on, also where
                the page is empty, until it is None.
            from_: Forwards: as for `events`, `beginning` by default; `page.cursor` leads on, also where the page is empty,
                until it is `up_to_date`.
            topics: As for `events`.
            limit: The most events, 1 to 10000; 1000 by default.
            wait: Forwards: seconds to wait for the first event, 0 to 60.
            view: `compact`: what the session is now, all of it, from the beginning; without `before`, `limit` and `wait`.
            type: As for `events`.

        Raises:
            EventDataError: An event's data is not of `type`.
        """
        given = {"before": before, "from": from_, "wait": f"{wait:g}" if wait else None}
        given |= {"limit": None if limit is None else str(limit), "view": None if view == "raw" else view}
        query = {**_topics(topics), **{k: v for k, v in given.items() if v is not None}}
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
        """Append one event; returns when it is durable. Further arguments are as for `publish_many`.

        Args:
            topic: The label to publish under.
            data: Anything that msgspec writes as JSON.
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
        """Append a batch, all of it or none; returns when it is durable.

        With `publisher` and `sequence` the append is idempotent: where the gateway cannot be reached, or the outcome is
        unknown, it is sent again for as long as the client's `retry_timeout`, and never written twice. Without, it is
        sent once.

        Args:
            events: `(topic, data)` each, or `{"topic": …, "data": …, "run"?: …, "activity"?: …}`.
            publisher: A name for one source of events.
            attempt: Which attempt of the publisher this is; a later one shuts earlier ones out.
            sequence: How many events this publisher has appended before, in this attempt.

        Raises:
            SequenceGapError: Events before these are missing; its `expected` tells the right sequence.
            AttemptFencedError: A later attempt has appended.
            SessionClosedError: Nothing can be appended any more.
            UnavailableError: The gateway cannot be reached; whether the batch was appended is not known.
        """
        if (publisher is None) != (sequence is None):
            raise RequestInvalidError("expected publisher and sequence together: one means nothing without the other")
        headers = dict(_JSON)
        if publisher is not None:
            headers["Wakeline-Publisher"] = publisher
            headers["Wakeline-Attempt"] = str(attempt)
            headers["Wakeline-Sequence"] = str(sequence)
        batch = [{"topic": e[0], "data": e[1]} if isinstance(e, tuple) else dict(e) for e in events]
        body = encode_events(batch)
        deadline = time.monotonic() + (0 if publisher is None else self._retry_seconds)
        backoff = Backoff()
        while True:
            try:
                # As a stream: aiohttp sends large bytes in pieces only so.
                return await self._http.call(
                    "POST", f"{self._path}/events", Published, headers=headers, body=lambda: BytesIO(body)
                )
            except (UnavailableError, LimitReachedError) as error:
                least = float(error.details.get("retry_after", 0))
                if time.monotonic() + least >= deadline:
                    raise
            await backoff.wait(least)

    async def state(self) -> SessionState:
        """How the session stands."""
        return await self._http.call("GET", self._path, SessionState)

    async def create(self, *, retention: Retention | None = None) -> SessionState:
        """Create the session, or change its retention if it is there.

        Args:
            retention: What it keeps; None is as the gateway's settings say.
        """
        asked = {} if retention is None else {"retention": retention}
        return await self._http.call("PUT", self._path, SessionState, headers=_JSON, body=lambda: encode(asked))

    async def close(self) -> None:
        """Close the session: nothing can be appended any more, ever. Doing it twice is harmless."""
        await self._http.do("POST", f"{self._path}/close")

    async def delete(self) -> None:
        """Erase the session: events, positions, publishers' sequences. The name may live again, under another epoch."""
        await self._http.do("DELETE", self._path)

    async def acknowledge(self, position: str | SessionEvent[Any], *, device: str, everywhere: bool = False) -> Device:
        """Tell that a device has seen everything up to a position; returns when that is durable.

        Args:
            position: An event, or a cursor. An older one than before changes nothing.
            device: The device's id.
            everywhere: The user's other devices have seen it too.
        """
        asked = {"seen": position if isinstance(position, str) else position.cursor, "everywhere": everywhere}
        path = session_path(self.name, "devices", device)
        return await self._http.call("PUT", path, Device, headers=_JSON, body=lambda: encode(asked))

    async def devices(self) -> list[Device]:
        """The user's devices in this session; everybody's, with a token that may `manage`."""
        return (await self._http.call("GET", f"{self._path}/devices", _Devices)).devices

    async def forget_device(self, device: str) -> None:
        """Forget a device and its positions."""
        await self._http.do("DELETE", session_path(self.name, "devices", device))

    async def export(self, to: str | PathLike[str]) -> int:
        """Write the session to a file, one JSON object a line; returns the offset after the last event.

        Args:
            to: Where. The file is there, or replaced, only when the export is whole.

        Raises:
            TransferError: It was cut short.
        """
        return await transfer.export(self._http, f"{self._path}/export", Path(to))

    async def import_(self, source: str | PathLike[str]) -> SessionState:
        """Make this session of an exported file: the same offsets, under a new epoch. All of it or nothing.

        Args:
            source: The file.

        Raises:
            SessionExistsError: There is a session of this name already.
        """
        return await transfer.import_(self._http, f"{self._path}/import", Path(source))


def _asked(device: str | None, *, wait_for_start: bool) -> dict[str, str]:
    asked = {} if device is None else {"device": device}
    return asked | {"wait_for_start": "true"} if wait_for_start else asked


def _topics(topics: str | Iterable[str] | None) -> dict[str, str]:
    if topics is None:
        return {}
    return {"topics": topics if isinstance(topics, str) else ",".join(topics)}
