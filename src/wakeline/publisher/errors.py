"""The errors of publishers; `wakeline.errors.publishing` has those that streams share.

    WakelineError
    └── PublisherError               publisher: anything a publisher refuses or cannot do
        ├── PublishDroppedError        events_dropped: events that were not delivered, with the events
        ├── PublisherClashError        publisher_clash: two publish under one name
        ├── PublisherMisusedError      publisher_misused: not open, or asked for what it cannot do (also a RuntimeError)
        ├── MessageCompleteError       message_complete: nothing can be added to a complete message
        └── SpoolError                 spool_failed: the file of the spool cannot be used

A `PublishDroppedError` that has a refusal as its reason is also of that refusal's class and has its code: `except
AttemptFencedError`, `except SessionClosedError` and `except UnavailableError` of `wakeline.errors` catch it, and `error.events`
are the events.
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
"""The refusals after which the gateway takes nothing more of an attempt."""


class DroppedEvent(msgspec.Struct, frozen=True):
    """An event that was not delivered; publish `data` under `topic` to try again.

    Attributes:
        topic: The topic it was published under.
        data: Its value, as JSON has it; None where it is a payload.
        payload: The Temporal payload it is, in its JSON form, where it is one.
        key: Its key.
        message: What it was to a message that grows.
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
        bodies: The same as the JSON that was to be sent.
        reason: Why, where there is an error that tells.
    """

    code, status = "events_dropped", 503
    hint = "Publish `events` again where they matter; later publishes go on."

    _of: ClassVar[dict[type[WakelineError], type[PublishDroppedError]]] = {}

    def __init__(self, message: str, *, bodies: Sequence[bytes] = (), reason: WakelineError | None = None) -> None:
        details = {} if reason is None else dict(reason.details)
        WakelineError.__init__(self, message, **details)
        self.bodies = list(bodies)
        self.reason = reason
        if reason is not None:
            # Such as `expected`, as the class of the code has them; one that counts its own events is not to hide these.
            vars(self).update({name: value for name, value in details.items() if name != "events"})
            self.code = reason.code  # type: ignore[misc] # what is fixed per class comes from the reason here
            self.hint = reason.hint
            self.status = reason.status  # type: ignore[misc] # as above
            self.__cause__ = reason

    @cached_property
    def events(self) -> tuple[DroppedEvent, ...]:
        """The events, in order."""
        return tuple([_decode_event(body) for body in self.bodies])

    @classmethod
    def because_of(cls, reason: WakelineError, what: str, bodies: Sequence[bytes]) -> PublishDroppedError:
        """Of the reason's class, too, so that `except` finds it by either."""
        kind = type(reason)
        if issubclass(kind, cls):
            return kind(f"{what}: {reason.message}", bodies=bodies)
        combined = cls._of.get(kind)
        if combined is None:
            names = {"__doc__": kind.__doc__, "__module__": "wakeline.publisher"}
            combined = cls._of[kind] = type(kind.__name__, (cls, kind), names)
        return combined(f"{what}: {reason.message}" if what else reason.message, bodies=bodies, reason=reason)


class PublisherClashError(PublisherError):
    """Somebody else publishes under the same session, publisher and attempt."""

    code, status = "publisher_clash", 409
    hint = "Give each publisher a name of its own: publisher=… names it."


class PublisherMisusedError(PublisherError, RuntimeError):
    """The publisher is not open, or was asked for what it cannot do."""

    code = "publisher_misused"
    hint = "Use it as the message says."


class MessageCompleteError(PublisherError):
    """The message is complete; nothing can be added to it."""

    code, status = "message_complete", 409
    hint = "Begin another message, under another id."


class SpoolError(PublisherError):
    """The file of the spool cannot be read or written."""

    code = "spool_failed"
    hint = "See that the file's directory is there and writable, and that the disk has space."


PublishReports: TypeAlias = Reports[bytes, PublishDroppedError]


def reports(owner: str, on_dropped: Callable[[PublishDroppedError], Any] | None) -> PublishReports:
    """Return the reports of one publisher."""

    def make(reason: WakelineError | None, what: str, bodies: Sequence[bytes]) -> PublishDroppedError:
        said = f"{len(bodies)} events of {owner} {what}" if what else ""
        if reason is None:
            return PublishDroppedError(said, bodies=bodies)
        return PublishDroppedError.because_of(reason, said, bodies)

    return Reports(owner, make, on_dropped)
