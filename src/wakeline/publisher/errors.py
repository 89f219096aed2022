"""The errors of publishers; `wakeline.errors.publishing` has those that streams share.

    WakelineError
    └── PublisherError               publisher: anything a publisher refuses or cannot do
        ├── PublishDroppedError        events_dropped: events that were not delivered, with the events
        ├── PublisherClashError        publisher_clash: two publishers have one name
        ├── PublisherMisusedError      publisher_misused: not open, or used in an unsupported way (also a RuntimeError)
        ├── MessageCompleteError       message_complete: nothing can be added to a complete message
        └── SpoolError                 spool_failed: the file of the spool cannot be used

A `PublishDroppedError` that has a refusal as its reason is also of that refusal's class and has its code: `except
AttemptFencedError`, `except SessionClosedError` and `except UnavailableError` of `wakeline.errors` catch it, and
`error.events` has the events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Final, TypeAlias

import msgspec

from wakeline.errors import AttemptFencedError, SessionClosedError, SessionDeletedError, WakelineError
from wakeline.errors.publishing import BufferFullError as BufferFullError
from wakeline.errors.publishing import PublisherError
from wakeline.errors.publishing import ValueRefusedError as ValueRefusedError
from wakeline.reports import Reports

ENDS: Final = (AttemptFencedError, SessionClosedError, SessionDeletedError)
"""The refusals after which the gateway accepts no more events of an attempt."""


class DroppedEvent(msgspec.Struct, frozen=True):
    """An event that was not delivered; publish `data` under `topic` to try again.

    Attributes:
        topic: The topic it was published under.
        data: Its value as plain JSON types; None if it is a payload.
        payload: The Temporal payload in its JSON form; None if it is plain data.
        key: Its key, if it has one.
        message: The growing message that it belongs to: `{"id", "op", "complete"?}`.
    """

    topic: str
    data: Any = None
    payload: dict[str, Any] | None = None
    key: str | None = None
    message: dict[str, Any] | None = None


_decode_event = msgspec.json.Decoder(DroppedEvent).decode


class PublishDroppedError(PublisherError):
    """Events were not delivered, and will not be.

    After a time-out or a lost connection it is unknown whether they arrived; after a refusal they did not.

    Attributes:
        events: The events, in order.
        bodies: The same events as JSON.
        reason: The error that prevented their delivery, if there is one.
    """

    code, status = "events_dropped", 503
    hint = "Publish `events` again if they matter; later publishes are accepted."

    _of: ClassVar[dict[type[WakelineError], type[PublishDroppedError]]] = {}

    def __init__(self, message: str, *, bodies: Sequence[bytes] = (), reason: WakelineError | None = None) -> None:
        details = {} if reason is None else dict(reason.details)
        WakelineError.__init__(self, message, **details)
        self.bodies = list(bodies)
        self.reason = reason
        if reason is not None:
            # Attributes of the reason's class, such as `expected`; its `events`, a count, must not hide this error's.
            vars(self).update({name: value for name, value in details.items() if name != "events"})
            self.code = reason.code  # type: ignore[misc] # fixed per class elsewhere, the reason's here
            self.hint = reason.hint
            self.status = reason.status  # type: ignore[misc] # as above
            self.__cause__ = reason

    @cached_property
    def events(self) -> tuple[DroppedEvent, ...]:
        """The events, in order."""
        return tuple([_decode_event(body) for body in self.bodies])

    @classmethod
    def because_of(cls, reason: WakelineError, what: str, bodies: Sequence[bytes]) -> PublishDroppedError:
        """Return an error that is also of the reason's class, so that `except` matches either."""
        kind = type(reason)
        if issubclass(kind, cls):
            return kind(f"{what}: {reason.message}", bodies=bodies)
        combined = cls._of.get(kind)
        if combined is None:
            names = {"__doc__": kind.__doc__, "__module__": "wakeline.publisher"}
            combined = cls._of[kind] = type(kind.__name__, (cls, kind), names)
        return combined(f"{what}: {reason.message}" if what else reason.message, bodies=bodies, reason=reason)


class PublisherClashError(PublisherError):
    """Another publisher is open under the same session, publisher and attempt."""

    code, status = "publisher_clash", 409
    hint = "Give each publisher a name of its own: publisher=… names it."


class PublisherMisusedError(PublisherError, RuntimeError):
    """The publisher is not open, or was used in a way that it does not support."""

    code = "publisher_misused"
    hint = "Use the publisher as the message says."


class MessageCompleteError(PublisherError):
    """The message is complete; nothing can be added to it."""

    code, status = "message_complete", 409
    hint = "Start another message, under another id."


class SpoolError(PublisherError):
    """The file of the spool cannot be read or written."""

    code = "spool_failed"
    hint = "Check that the file's directory exists and is writable, and that the disk has space."


PublishReports: TypeAlias = Reports[bytes, PublishDroppedError]


def reports(owner: str, on_dropped: Callable[[PublishDroppedError], Any] | None) -> PublishReports:
    """Return the reports of one publisher."""

    def make(reason: WakelineError | None, what: str, bodies: Sequence[bytes]) -> PublishDroppedError:
        said = f"{len(bodies)} events of {owner} {what}" if what else ""
        if reason is None:
            return PublishDroppedError(said, bodies=bodies)
        return PublishDroppedError.because_of(reason, said, bodies)

    return Reports(owner, make, on_dropped)
