"""The errors of Workflow Streams.

    WakelineError
    └── StreamError                  anything a stream refuses or cannot do
        ├── StreamMisplacedError       constructed where it cannot work (also a RuntimeError)
        ├── TopicTypeError             a topic bound to a second type, or to Payload (also a RuntimeError)
        ├── ValueRefusedError          a value that cannot become a payload (also a TypeError)
        ├── ValueTooLargeError         a value that no message can carry (also a ValueError)
        ├── BufferFullError            no room for an event until others are sent (also a BufferError)
        ├── PublishDroppedError        events that were given up, with the events (also a TimeoutError)
        │   └── SignalLimitError         the host's run takes no more signals
        └── StreamUnavailableError     reading failed for longer than the caller allowed

Those that are also a built-in error are so because the official library raises the built-in one. For the same reason
the messages of refusals have the words by which programs and tests recognise the official ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from temporalio.api.common.v1 import Payload

from wakeline.errors import WakelineError


class StreamError(WakelineError):
    """Anything a stream refuses or cannot do."""

    code = "stream"


class StreamMisplacedError(StreamError, RuntimeError):
    """A stream or a stream client was constructed where it cannot work."""

    code = "stream_misplaced"
    hint = "Construct one WorkflowStream per workflow, directly in its @workflow.init method."


class TopicTypeError(StreamError, RuntimeError):
    """A topic has one type, and the type is not Payload."""

    code = "topic_type"
    hint = "Use one type per topic, or leave type out for a topic of mixed values."


class ValueRefusedError(StreamError, TypeError):
    """The payload converter cannot convert a value; nothing was buffered."""

    code = "value_refused"
    hint = "Publish a value that the client's payload converter can convert; the cause says what it met."


class ValueTooLargeError(StreamError, ValueError):
    """One value is larger than any message may be; nothing was buffered."""

    code, status = "value_too_large", 413
    hint = "Keep large values elsewhere and publish a reference."


class BufferFullError(StreamError, BufferError):
    """As many events wait to be sent as may; this one was not taken."""

    code, status = "buffer_full", 503
    hint = "Await publish_wait, publish less, or choose another when_full."


@dataclass(frozen=True)
class DroppedEvent:
    """An event that was given up; publish `payload` under `topic` to try again.

    Attributes:
        topic: The topic it was published under.
        payload: Its value, converted.
    """

    topic: str
    payload: Payload


class PublishDroppedError(StreamError, TimeoutError):
    """Events were given up: the server refused them, or could not be reached for `max_retry_duration`.

    The cause is the last error met. After a time-out it is unknown whether the events arrived; after a refusal they
    did not.

    Attributes:
        events: The events, in order.
    """

    code, status = "publish_dropped", 503
    hint = "Publish `events` again where they matter; later publishes go on."

    def __init__(self, message: str, *, events: Sequence[DroppedEvent]) -> None:
        super().__init__(message, events=len(events))
        self.events = tuple(events)


class SignalLimitError(PublishDroppedError):
    """The host's run has taken as many signals as the server allows; the events did not arrive."""

    code, status = "signal_limit", 503
    hint = "Have the host continue as new when WorkflowStream.continue_as_new_suggested says so."


class StreamUnavailableError(StreamError):
    """A stream could not be read for longer than `retry_timeout`; the cause is the last error met."""

    code, status = "stream_unavailable", 503
    hint = "Check that a worker polls the workflow's task queue; subscribe again from the last offset + 1."
