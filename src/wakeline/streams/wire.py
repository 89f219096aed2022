"""The wire: handler names, error types and the dataclasses of the messages.

Everything here is a contract with hosts and clients in five languages. `tests/unit/streams/test_wire.py` compares it
with the installed `temporalio.contrib.workflow_streams`.

A payload travels as base64 of its serialized protobuf, because a JSON converter cannot hold a `Payload` inside a
dataclass. The payload converter runs on each value; the codec chain (encryption, compression) runs once, on the
signal, update or query that carries them.
"""

# No `from __future__ import annotations` here: in a workflow sandbox that passes `wakeline.streams` through, this module
# is not among `sys.modules`, and the names in annotations kept as text could not be resolved.

import base64
import json
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Generic, TypeVar

from temporalio.api.common.v1 import Payload

from wakeline.temporal import refusals

T = TypeVar("T")

PUBLISH_SIGNAL = "__temporal_workflow_stream_publish"
# One name for the update that waits and for the query that answers at once.
POLL = refusals.POLL
OFFSET_QUERY = refusals.OFFSET_QUERY

# `ApplicationError.type` of a poll that met a continue-as-new under way, of one before the oldest retained event, and
# of a truncation past the end.
STREAM_DRAINING = refusals.STREAM_DRAINING
TRUNCATED_OFFSET = refusals.TRUNCATED_OFFSET
TRUNCATE_OUT_OF_RANGE = "TruncateOutOfRange"

# Bytes of events in one poll answer; a single larger event still travels alone.
MAX_POLL_BYTES = 1_000_000

# `{"topic":,"data":"","offset":999999999999},` around the two strings of an entry.
_ENTRY_OVERHEAD = 48


@dataclass
class WorkflowStreamItem(Generic[T]):
    """One event as a subscriber sees it.

    Attributes:
        topic: The topic it was published under.
        data: The value, decoded as `subscribe(result_type=…)` asked.
        offset: Its position in the stream, counted over all topics.
    """

    topic: str
    data: T
    offset: int = 0


@dataclass
class PublishEntry:
    """One event of a publish signal.

    Attributes:
        topic: The topic.
        data: The payload, see `encode_payload`.
    """

    topic: str
    data: str


@dataclass
class PublishInput:
    """A publish signal: one batch, accepted whole or, if it is a repetition, not at all.

    Attributes:
        items: The events, in order.
        publisher_id: The sender; empty for a sender without deduplication.
        sequence: Number of this batch, from 1; one that is not above the last accepted is a repetition.
    """

    items: list[PublishEntry] = field(default_factory=list)
    publisher_id: str = ""
    sequence: int = 0


@dataclass
class ReceivedBatch:
    """A publish signal as the host receives it: `PublishInput` with unchecked entries.

    `items` has no type because the SDK would convert each entry of a typed list, at some 25 µs, within the workflow
    task. On a busy machine a burst of 20,000 entries then exceeds the 2 s after which the SDK reports a deadlock.
    """

    items: Any = ()
    publisher_id: str = ""
    sequence: int = 0


@dataclass
class PollInput:
    """A poll: the update waits for an event at or past the offset, the query answers at once.

    Attributes:
        topics: Topics wanted; empty for all.
        from_offset: First offset wanted; 0 is the oldest that is retained.
    """

    topics: list[str] = field(default_factory=list)
    from_offset: int = 0


@dataclass
class WireItem:
    """One event of a poll answer, or of carried state (where `offset` is left 0)."""

    topic: str
    data: str
    offset: int = 0


@dataclass
class PollResult:
    """A poll answer.

    Attributes:
        items: Events that match, in order.
        next_offset: The offset to ask for next.
        more_ready: Whether the answer was cut at `MAX_POLL_BYTES`, so that asking again at once pays.
    """

    items: list[WireItem] = field(default_factory=list)
    next_offset: int = 0
    more_ready: bool = False


@dataclass
class PublisherState:
    """The last batch of a publisher, by which a repetition is recognised.

    Attributes:
        sequence: The number of the last accepted batch.
        last_seen: Workflow time at which it was accepted.
    """

    sequence: int
    last_seen: datetime


@dataclass
class WorkflowStreamState:
    """A stream's state, carried from one run to the next by continue-as-new.

    Type the field of the workflow's input as `WorkflowStreamState | None`: as `Any` it would come back as a dict.

    Attributes:
        log: The retained events.
        base_offset: Offset of the first of them.
        publishers: Publishers that may still repeat a batch, by publisher id.
    """

    log: list[WireItem] = field(default_factory=list)
    base_offset: int = 0
    publishers: dict[str, PublisherState] = field(default_factory=dict)


def encode_payload(payload: Payload) -> str:
    """Return a payload in its wire form."""
    return base64.b64encode(payload.SerializeToString()).decode("ascii")


def decode_payload(data: str) -> Payload:
    """Return a payload from its wire form.

    Raises:
        ValueError: This is not base64, or not of a payload.
    """
    serialized = base64.b64decode(data, validate=True)
    try:
        return Payload.FromString(serialized)
    except Exception as error:  # protobuf's DecodeError, named without making protobuf a dependency of ours
        raise ValueError(f"expected base64 of a serialized Payload, got base64 of something else: {error}") from error


def received_entry(entry: Any) -> tuple[str, str]:
    """Check one entry of a `ReceivedBatch`.

    Returns:
        Its topic and its payload in wire form.

    Raises:
        ValueError: It has no topic, or its data is no payload.
    """
    # A payload converter other than JSON's may return the sender's own dataclass.
    fields = entry if isinstance(entry, dict) else getattr(entry, "__dict__", {})
    topic, data = fields.get("topic"), fields.get("data")
    if not (isinstance(topic, str) and isinstance(data, str)):
        raise ValueError(f"expected a topic and data, both text, got {topic!r:.100} and {data!r:.100}")
    decode_payload(data)
    return topic, data


def wire_size(topic: str, data: str) -> int:
    """Return an upper bound of the bytes of an event in a message."""
    return _topic_size(topic) + len(data) + _ENTRY_OVERHEAD


@lru_cache(maxsize=1024)
def _topic_size(topic: str) -> int:
    return len(json.dumps(topic))
