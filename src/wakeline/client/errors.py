"""The client's own errors, and the gateway's refusals as errors of their class.

    WakelineError
    ├── RefusedError         the gateway refused; every refusal of a known code is also of that code's class
    │   └── NotAGatewayError  not_a_gateway: another server answered
    ├── EventDataError       event_data: an event's data is not of the requested type
    ├── StreamBrokenError    stream_broken: the answer is not the session's event stream
    ├── CodecError           codec_failed: a codec server refuses, or answers without payloads
    └── TransferError        transfer_failed: an export is incomplete

The codes of refusals are those of `wakeline.errors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from wakeline import errors
from wakeline.client.structs import SessionEvent
from wakeline.errors import WakelineError

NOT_A_GATEWAY: Final = (
    "Check that the URL is a Wakeline gateway's, by default http://127.0.0.1:7777 and neither Temporal's port (7233) nor "
    "its web interface's (8233), and that no proxy answers in the gateway's place."
)


class RefusedError(WakelineError):
    """The gateway refused a request; `code`, `status`, `message`, `hint` and `details` are its.

    A refusal is also of its code's class in `wakeline.errors`: `except SessionNotFoundError` and `except RefusedError` both
    catch a `session_not_found`.
    """

    def __init__(self, status: int, error: Mapping[str, Any]) -> None:
        details = {key: value for key, value in error.items() if key not in ("code", "message", "hint")}
        WakelineError.__init__(self, str(error.get("message", f"the gateway answered {status}")), **details)
        vars(self).update(details)  # attributes of the code's class, such as `expected`
        self.code = error.get("code", type(self).code)  # type: ignore[misc] # fixed per class elsewhere, the gateway's here
        self.hint = error.get("hint", NOT_A_GATEWAY)
        self.status = status  # type: ignore[misc] # as above


class NotAGatewayError(RefusedError):
    """Another server answered: its answer is not one of Wakeline's."""

    code = "not_a_gateway"
    hint = NOT_A_GATEWAY


class EventDataError(WakelineError):
    """An event's data is not of the requested type. The next event can be awaited all the same.

    Attributes:
        event: The event with its data as plain JSON; its data is None for a payload that could not be decoded.
    """

    code = "event_data"
    hint = "Pass a type that fits this topic's events, or read fewer topics; the error's `event` has the data as plain JSON."

    def __init__(self, message: str, event: SessionEvent[Any]) -> None:
        super().__init__(message, offset=event.offset, topic=event.topic)
        self.event = event


class StreamBrokenError(WakelineError):
    """The answer is not the session's event stream, or repeatedly lacks an event."""

    code = "stream_broken"
    hint = "Check the proxies between this client and the gateway: one of them changes or drops events."


class CodecError(WakelineError):
    """A codec server refuses, or answers without payloads."""

    code = "codec_failed"
    hint = "Check that the URL is a codec server's, and that the headers are those that it requires."


class TransferError(WakelineError):
    """An export is incomplete."""

    code = "transfer_failed"
    hint = "Export again; this export left no file."


def refusal(status: int, error: Mapping[str, Any]) -> RefusedError:
    """Return the error of a refusal: also of its code's class, if that is known."""
    if "code" not in error:
        return NotAGatewayError(status, error)
    return _KINDS.get(str(error.get("code")), RefusedError)(status, error)


_KINDS: Final[dict[str, type[RefusedError]]] = {
    kind.code: type(kind.__name__, (RefusedError, kind), {"__doc__": kind.__doc__, "__module__": "wakeline.client"})
    for kind in vars(errors).values()
    # Not the root: its code is that of `InternalError`, which is the more precise class.
    if isinstance(kind, type) and issubclass(kind, WakelineError) and kind is not WakelineError and "code" in vars(kind)
}
