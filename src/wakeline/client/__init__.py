"""Sessions from Python: publish, watch, steer. `SessionClient` for asyncio, `SyncSessionClient` for everything else.

    client.py    SessionClient: one gateway, and which sessions it has
    session.py   Session: everything that can be done with one of them
    stream.py    EventStream: every event once, in order, through any disconnect
    view.py        what may come next, and what must not
    live_view.py LiveView: what a session is, kept up to date
    sse.py         the bytes of an event stream
    values.py    typed data, in and out
    codec.py     RemoteCodec: payloads decoded by a codec server
    transfer.py  export and import
    http.py      requests: the token, and refusals as errors
    reach.py     what an answer or a silence tells the caller
    structs.py   what is handed out
    errors.py    what goes wrong on this side
    sync.py      the same without asyncio

It speaks the HTTP of PROTOCOL.md, as everybody does. `RemoteCodec` is imported when it is asked for: only who reads payloads
needs Temporal's classes.
"""

from typing import TYPE_CHECKING, Any

from wakeline.client.client import SessionClient
from wakeline.client.errors import CodecError, EventDataError, RefusedError, StreamBrokenError, TransferError
from wakeline.client.live_view import (
    Change,
    EventAdded,
    LiveMessage,
    LiveView,
    MessageChanged,
    StateChanged,
    Superseded,
)
from wakeline.client.session import Session
from wakeline.client.stream import EventStream
from wakeline.client.structs import Device, Page, Published, Retention, Run, SessionEvent, SessionState
from wakeline.client.sync import SyncEventStream, SyncLiveView, SyncSession, SyncSessionClient

if TYPE_CHECKING:
    from wakeline.client.codec import RemoteCodec

__all__ = [
    "Change",
    "CodecError",
    "Device",
    "EventAdded",
    "EventDataError",
    "EventStream",
    "LiveMessage",
    "LiveView",
    "MessageChanged",
    "Page",
    "Published",
    "RefusedError",
    "RemoteCodec",
    "Retention",
    "Run",
    "Session",
    "SessionClient",
    "SessionEvent",
    "SessionState",
    "StateChanged",
    "StreamBrokenError",
    "Superseded",
    "SyncEventStream",
    "SyncLiveView",
    "SyncSession",
    "SyncSessionClient",
    "TransferError",
]


def __getattr__(name: str) -> Any:
    """`RemoteCodec`, when it is first asked for."""
    if name != "RemoteCodec":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from wakeline.client.codec import RemoteCodec

    return RemoteCodec
