"""Publishing at token speed: from activities and services straight into a session, each event once, in order.

publisher.py   SessionPublisher: options, opening, flushing, closing
topics.py      typed topics, and messages that grow
values.py      from a value to JSON
intake.py      accepts events into the buffer, by the publisher's policies
sender.py      one append at a time, under one's own sequence
connection.py  the WebSocket that all publishers of an event loop share; pool.py chooses it, dial.py opens it
frames.py      what goes over it
places.py      who publishes under which name in this process
detour.py      other ways while the gateway is away: spooling.py over spool.py (a file) and drain.py (emptying it),
               fallback.py (the workflow's own stream)
nudger.py      Nudger: tells that a workflow has something new, which goes through Temporal
activity.py    what the current activity says; heartbeat.py tells the next attempt how far this one has come
sync.py        the same without asyncio
errors.py      what goes wrong on this side
"""

from temporalio import workflow

# A file may have a workflow beside activities that publish. The workflow sandbox imports every module of such a file again,
# and the libraries of this package do not support that.
with workflow.unsafe.imports_passed_through():
    from wakeline.errors import AttemptFencedError, UnavailableError
    from wakeline.errors.publishing import BufferFullError, PublisherError, ValueRefusedError
    from wakeline.publisher.errors import (
        DroppedEvent,
        MessageCompleteError,
        PublishDroppedError,
        PublisherClashError,
        PublisherMisusedError,
        SpoolError,
    )
    from wakeline.publisher.nudger import Nudger
    from wakeline.publisher.publisher import SessionPublisher
    from wakeline.publisher.sync import SyncMessage, SyncSessionPublisher, SyncTopic
    from wakeline.publisher.topics import Message, Topic

__all__ = [
    "AttemptFencedError",
    "BufferFullError",
    "DroppedEvent",
    "Message",
    "MessageCompleteError",
    "Nudger",
    "PublishDroppedError",
    "PublisherClashError",
    "PublisherError",
    "PublisherMisusedError",
    "SessionPublisher",
    "SpoolError",
    "SyncMessage",
    "SyncSessionPublisher",
    "SyncTopic",
    "Topic",
    "UnavailableError",
    "ValueRefusedError",
]
