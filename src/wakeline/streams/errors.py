"""The errors of Workflow Streams; `wakeline.errors.publishing` has those of all publishers.

    WakelineError
    └── StreamError                  anything a stream refuses or cannot do
        ├── StreamMisplacedError       constructed where it cannot work (also a RuntimeError)
        ├── ValueTooLargeError         a value that no message can carry (also a ValueError)
        ├── PublishDroppedError        events that were abandoned, with the events (also a TimeoutError)
        │   └── SignalLimitError         the host's run accepts no more signals
        └── StreamUnavailableError     reading failed for longer than the caller allowed

Those that are also a built-in error are so because the official library raises the built-in one. For the same reason
the messages of refusals have the words by which programs and tests recognise the official ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from temporalio.api.common.v1 import Payload

from wakeline.errors.publishing import BufferFullError as BufferFullError
from wakeline.errors.publishing import StreamError
from wakeline.errors.publishing import TopicTypeError as TopicTypeError
from wakeline.errors.publishing import ValueRefusedError as ValueRefusedError


class StreamMisplacedError(StreamError, RuntimeError):
    """A stream or a stream client was constructed where it cannot work."""

    code = "stream_misplaced"
    hint = "Construct one WorkflowStream per workflow, directly in its @workflow.init method."


class ValueTooLargeError(StreamError, ValueError):
    """One value is larger than any message may be; nothing was buffered."""

    code, status = "value_too_large", 413
    hint = "Keep large values elsewhere and publish a reference."


@dataclass(frozen=True)
class DroppedEvent:
    """An event that was abandoned; publish `payload` under `topic` to try again.

    Attributes:
        topic: The topic it was published under.
        payload: Its value, converted.
    """

    topic: str
    payload: Payload


class PublishDroppedError(StreamError, TimeoutError):
    """Events were abandoned: the server refused them, or could not be reached in time.

    The time is `max_retry_duration`. The cause is the last error. After a time-out it is unknown whether the events
    arrived; after a refusal they did not.

    Attributes:
        events: The events, in order.
    """

    code, status = "publish_dropped", 503
    hint = "Publish `events` again where they matter; later publishes continue."

    def __init__(self, message: str, *, events: Sequence[DroppedEvent]) -> None:
        super().__init__(message, events=len(events))
        self.events = tuple(events)


class SignalLimitError(PublishDroppedError):
    """The host's run has accepted as many signals as it may; the events did not arrive."""

    code, status = "signal_limit", 503
    hint = "Have the host continue as new when WorkflowStream.continue_as_new_suggested says so."


class StreamUnavailableError(StreamError):
    """A stream could not be read for longer than `retry_timeout`; the cause is the last error."""

    code, status = "stream_unavailable", 503
    hint = "Check that a worker polls the workflow's task queue; subscribe again from the last offset + 1."
