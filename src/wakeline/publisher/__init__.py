"""Publishing at token speed: from activities and services straight into a session.

Each event arrives once and in order. Open `publisher.py` first.

publisher.py   SessionPublisher: options, opening, flushing, closing
topics.py      typed topics, and messages that grow
values.py      converts a value to JSON
intake.py      accepts events into the buffer, by the publisher's policies
route.py       makes the sender and the detour from the publisher's options, which options.py checks
sender.py      sends one append at a time, each event under its sequence number; outbox.py holds the numbered events,
               timers.py its timers
connection.py  the WebSocket that all publishers of an event loop share; pool.py chooses it, dial.py opens it
frames.py      the frames of that WebSocket
places.py      the names under which this process publishes
detour.py      another way for events while the gateway is away: spooling.py over spool.py (a file) and drain.py (which
               empties it), or fallback.py (the workflow's own stream)
nudger.py      Nudger: notifies the gateway of a workflow that publishes through Temporal
requests.py    AskedRequest: requests for input
activity.py    the publisher's options from the current activity; heartbeat.py reports its progress to the next attempt
sync.py        the same publisher without asyncio
errors.py      the errors of publishers
"""

from temporalio import workflow

# A file may have a workflow beside activities that publish. The workflow sandbox imports every module of such a file
# again, and the libraries of this package do not support that.
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
    from wakeline.publisher.requests import AskedRequest, Asking
    from wakeline.publisher.sync import SyncAskedRequest, SyncMessage, SyncSessionPublisher, SyncTopic
    from wakeline.publisher.topics import Message, Topic

__all__ = [
    "AskedRequest",
    "Asking",
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
    "SyncAskedRequest",
    "SyncMessage",
    "SyncSessionPublisher",
    "SyncTopic",
    "Topic",
    "UnavailableError",
    "ValueRefusedError",
]
