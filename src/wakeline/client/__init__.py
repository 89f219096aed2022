"""Sessions from Python: publish, watch and manage them.

`SessionClient` is for asyncio, `SyncSessionClient` for programs without it. Both use the HTTP of PROTOCOL.md only, and any
package may import them. Open `session.py` first.

    client.py    SessionClient: one gateway and its sessions
    session.py   Session: every operation on one session
    stream.py    EventStream: every event once, in order, across disconnects
    view.py        checks that each event is the next one
    live_view.py LiveView: the state of a session, kept up to date
    sse.py         parses the bytes of an event stream
    inputs.py    signals and updates to a session's run
    requests.py  the open requests for input, and answers
    values.py    typed data, in and out
    codec.py     RemoteCodec: a codec server encodes and decodes payloads
    transfer.py  export and import
    http.py      requests: the token, and refusals as errors
    reach.py     errors of failed connections and of answers that are no gateway's
    structs.py   the results of calls
    errors.py    the client's own errors, and refusals by their code
    sync.py      the same without asyncio
    options.py   keyword arguments as types

`RemoteCodec` is imported on first use: only programs that read payloads need Temporal's classes.
"""

from typing import TYPE_CHECKING, Any

from wakeline.client.client import SessionClient
from wakeline.client.errors import (
    CodecError,
    EventDataError,
    NotAGatewayError,
    RefusedError,
    StreamBrokenError,
    TransferError,
)
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
from wakeline.client.structs import (
    Device,
    InputOutcome,
    InputRequest,
    Page,
    Published,
    RequestOutcome,
    Retention,
    Run,
    SessionEvent,
    SessionState,
)
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
    "InputOutcome",
    "InputRequest",
    "LiveMessage",
    "LiveView",
    "MessageChanged",
    "NotAGatewayError",
    "Page",
    "Published",
    "RefusedError",
    "RemoteCodec",
    "RequestOutcome",
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
    """Import `RemoteCodec` on its first use."""
    if name != "RemoteCodec":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from wakeline.client.codec import RemoteCodec

    return RemoteCodec
