"""Composes the events of a batch in the form that the log stores."""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from wakeline.errors import BodyInvalidError, EventTooLargeError
from wakeline.events import (
    MessagePiece,
    NewEvent,
    WirePayload,
    check_data,
    check_fields,
    check_topic,
    compose,
    enclose,
)
from wakeline.gateway.log import Publication
from wakeline.notices import Notice, check_notice, with_notice

_MOST_KNOWN: Final = 10_000
_Alike: TypeAlias = tuple[str, str | None, str | None, int | None]
"""Topic, run, activity and attempt."""


class Incoming(msgspec.Struct, forbid_unknown_fields=True):
    """An event as a publisher sends it. PROTOCOL.md §3."""

    topic: str
    data: msgspec.Raw | UnsetType = UNSET
    payload: WirePayload | UnsetType = UNSET
    key: str | None = None
    message: MessagePiece | None = None
    notify: Notice | None = None
    run: str | None = None
    activity: str | None = None


class Composer:
    """Composes events of batches.

    Most events have the topic and run of earlier ones. The part of the body around the data is checked and encoded once for
    all of them, which halves the cost of an event.

    Args:
        max_event_bytes: The largest data of one event.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._around: dict[_Alike, tuple[bytes, bytes]] = {}

    def event(self, event: Incoming, time: str, publication: Publication | None) -> NewEvent:
        """Return an event in the form that the log stores.

        Args:
            event: The event.
            time: When it was accepted, from `timestamp()`.
            publication: Its publisher; None if it has none.

        Raises:
            RequestError: It cannot be accepted.
        """
        if event.payload is not UNSET or event.key is not None or event.message is not None or event.notify is not None:
            return self._unlike(event, time, publication)
        data = _data(event)
        if len(data) > self._max_event_bytes:
            raise self._too_large(data)
        run, activity, attempt = _writer(event, publication)
        alike = (event.topic, run, activity, attempt)
        around = self._around.get(alike)
        if around is None:
            around = self._enclosure(*alike)
        body = b'%b%b,"time":"%b"%b' % (around[0], check_data(data), time.encode(), around[1])
        return NewEvent(event.topic, body, time)

    def _enclosure(self, topic: str, run: str | None, activity: str | None, attempt: int | None) -> tuple[bytes, bytes]:
        check_fields(b"", payload=False, run=run, activity=activity, key=None, message=None)
        around = enclose(check_topic(topic), run=run, activity=activity, attempt=attempt)
        if len(self._around) >= _MOST_KNOWN:
            self._around.clear()
        self._around[topic, run, activity, attempt] = around
        return around

    def _unlike(self, event: Incoming, time: str, publication: Publication | None) -> NewEvent:
        """Compose an event that has a payload, a key, a message or a notice."""
        payload = event.payload is not UNSET
        if payload and event.data is not UNSET:
            raise BodyInvalidError("expected data or payload, got both")
        data = msgspec.json.encode(event.payload) if payload else _data(event)
        if len(data) > self._max_event_bytes:
            raise self._too_large(data)
        run, activity, attempt = _writer(event, publication)
        check_fields(data, payload=payload, run=run, activity=activity, key=event.key, message=event.message)
        composed = compose(
            check_topic(event.topic),
            data,
            time=time,
            payload=payload,
            run=run,
            activity=activity,
            attempt=attempt,
            key=event.key,
            message=event.message,
        )
        return composed if event.notify is None else with_notice(composed, check_notice(event.notify))

    def _too_large(self, data: bytes) -> EventTooLargeError:
        return EventTooLargeError(f"expected at most {self._max_event_bytes} bytes of data, got {len(data)}")


def _data(event: Incoming) -> bytes:
    return b"null" if event.data is UNSET else bytes(event.data)


def _writer(event: Incoming, publication: Publication | None) -> tuple[str | None, str | None, int | None]:
    """Return the run, the activity and the attempt that an event belongs to."""
    if publication is None:
        return event.run, event.activity, None
    activity = event.activity or publication.activity
    return event.run or publication.run, activity, None if activity is None else publication.attempt
