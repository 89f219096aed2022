"""The first station of an event: take a publisher's batch, or refuse it with a reason, and hand it to the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from wakeline.errors import BodyInvalidError, EventTooLargeError, RequestInvalidError
from wakeline.events import NewEvent, check_session_name, check_topic, compose, timestamp
from wakeline.gateway.log import Append, Appended, Engine, Position, Publication

_MAX_SEQUENCE: Final = 2**53 - 1  # what every JSON reader can hold


class _Incoming(msgspec.Struct, forbid_unknown_fields=True):
    topic: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    run: str | None = None
    activity: str | None = None


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    events: list[_Incoming]


_batch = msgspec.json.Decoder(_Batch)
_line = msgspec.json.Decoder(_Incoming)


def decode_json(body: bytes) -> list[_Incoming]:
    """Read `{"events": [...]}`.

    Raises:
        BodyInvalidError: The body is not that.
    """
    try:
        return _batch.decode(body).events
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BodyInvalidError(f'expected {{"events": [...]}}, got: {error}') from None


def decode_ndjson(body: bytes) -> list[_Incoming]:
    """Read one event a line; empty lines are passed over.

    Raises:
        BodyInvalidError: A line is not an event; the message names it.
    """
    events: list[_Incoming] = []
    for number, line in enumerate(body.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            events.append(_line.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BodyInvalidError(f"expected an event in line {number}, got: {error}") from None
    return events


def publication(publisher: str | None, attempt: str | None, sequence: str | None) -> Publication | None:
    """Read the headers that make an append idempotent.

    Args:
        publisher: `Wakeline-Publisher`.
        attempt: `Wakeline-Attempt`.
        sequence: `Wakeline-Sequence`.

    Raises:
        RequestInvalidError: One is missing or not what it must be.
    """
    if publisher is None and attempt is None and sequence is None:
        return None
    if publisher is None or sequence is None:
        raise RequestInvalidError(
            "expected Wakeline-Publisher and Wakeline-Sequence together, got one without the other"
        )
    if not (1 <= len(publisher) <= 256 and publisher.isascii() and publisher.isprintable()):
        raise RequestInvalidError("expected Wakeline-Publisher to be 1 to 256 visible ASCII characters")
    return Publication(
        publisher,
        _integer("Wakeline-Attempt", attempt or "1", at_least=1),
        _integer("Wakeline-Sequence", sequence, at_least=0),
    )


def _integer(name: str, text: str, *, at_least: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and at_least <= int(text) <= _MAX_SEQUENCE):
        raise RequestInvalidError(f"expected {name} to be an integer from {at_least} to 2^53-1, got {text[:40]!r}")
    return int(text)


class Accept:
    """Validates events, gives them their time, and appends them.

    Args:
        engine: The log.
        max_event_bytes: The largest `data` of one event.
    """

    def __init__(self, engine: Engine, *, max_event_bytes: int = 1024 * 1024) -> None:
        self._engine = engine
        self._max_event_bytes = max_event_bytes

    async def publish(
        self, session: str, incoming: Sequence[_Incoming], publication: Publication | None = None
    ) -> Appended:
        """Append what a publisher sent.

        Raises:
            RequestError: The session's name, a topic or an event cannot be taken; nothing was appended.
            WakelineError: What `Engine.append` raises.
        """
        check_session_name(session)
        if not incoming:
            raise BodyInvalidError("expected at least one event, got none")
        time = timestamp()
        attempt = publication.attempt if publication else None
        events = tuple([self._event(event, time, attempt) for event in incoming])
        return await self.append(session, events, publication)

    async def append(
        self,
        session: str,
        events: tuple[NewEvent, ...],
        publication: Publication | None = None,
        *,
        epoch: str | None = None,
    ) -> Appended:
        """Append events that are composed already: the follower's, with Wakeline's own among them."""
        return await self._engine.append(Append(session, events, publication, epoch=epoch))

    async def position(self, session: str, publisher: str) -> Position | None:
        """How far a publisher has come in a session."""
        return await self._engine.position(session, publisher)

    def _event(self, event: _Incoming, time: str, attempt: int | None) -> NewEvent:
        data = bytes(event.data)
        if len(data) > self._max_event_bytes:
            raise EventTooLargeError(f"expected at most {self._max_event_bytes} bytes of data, got {len(data)}")
        return compose(
            check_topic(event.topic),
            data,
            time=time,
            run=event.run,
            activity=event.activity,
            attempt=attempt if event.activity is not None else None,
        )
