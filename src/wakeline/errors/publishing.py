"""The errors that streams and publishers share.

    WakelineError
    ├── StreamError                  an error of a workflow's stream
    │   ├── TopicTypeError             a topic of a second type, or of Payload (also a PublisherError and a RuntimeError)
    │   ├── BufferFullError            no room for an event until others are sent (also a PublisherError and a BufferError)
    │   └── ValueRefusedError          a value that no event can hold (also a PublisherError and a TypeError)
    └── PublisherError               an error of a publisher

The three classes in the middle are exported by both packages, `streams` and `publisher`.
"""

from __future__ import annotations

from wakeline.errors.base import WakelineError


class StreamError(WakelineError):
    """The base class of the errors of a workflow's stream."""

    code = "stream"


class PublisherError(WakelineError):
    """The base class of the errors of a publisher."""

    code = "publisher"
    hint = "See the message."


class TopicTypeError(StreamError, PublisherError, RuntimeError):
    """A topic of a second type, or of the type Payload."""

    code = "topic_type"
    hint = "Use one type per topic, or leave type out for a topic of mixed values."


class BufferFullError(StreamError, PublisherError, BufferError):
    """An event that was not accepted because the buffer is full."""

    code, status = "buffer_full", 503
    hint = "Publish less, wait for room with publish_wait or flush, or choose another when_full."


class ValueRefusedError(StreamError, PublisherError, TypeError):
    """A value that was not accepted because no event can hold it."""

    code = "value_refused"
    hint = "Publish a value that JSON or the payload converter can represent, or pass a data_converter that can."
