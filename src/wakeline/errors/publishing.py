"""The errors that streams and publishers share.

    WakelineError
    ├── StreamError                  anything a stream refuses or cannot do
    │   ├── TopicTypeError             a topic of a second type, or of Payload (also a PublisherError and a RuntimeError)
    │   ├── BufferFullError            no room for an event until others are sent (also a PublisherError and a BufferError)
    │   └── ValueRefusedError          a value that no event can hold (also a PublisherError and a TypeError)
    └── PublisherError               anything a publisher refuses or cannot do

The three in the middle have one class under the names of both packages.
"""

from __future__ import annotations

from wakeline.errors.base import WakelineError


class StreamError(WakelineError):
    """Anything a stream refuses or cannot do."""

    code = "stream"


class PublisherError(WakelineError):
    """Anything a publisher refuses or cannot do."""

    code = "publisher"
    hint = "See the message."


class TopicTypeError(StreamError, PublisherError, RuntimeError):
    """A topic has one type, and the type is not Payload."""

    code = "topic_type"
    hint = "Use one type per topic, or leave type out for a topic of mixed values."


class BufferFullError(StreamError, PublisherError, BufferError):
    """The buffer is full; this event was not accepted."""

    code, status = "buffer_full", 503
    hint = "Publish less, wait for room with publish_wait or flush, or choose another when_full."


class ValueRefusedError(StreamError, PublisherError, TypeError):
    """No event can hold this value; it was not accepted."""

    code = "value_refused"
    hint = "Publish a value that JSON or the payload converter can represent, or pass a data_converter that can."
