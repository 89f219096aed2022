"""What goes wrong on the client's side, and the gateway's refusals as errors of their class.

    WakelineError
    ├── RefusedError         the gateway refused; every refusal of a known code is also of that code's class
    ├── EventDataError       event_data: an event's data is not what was asked for
    ├── StreamBrokenError    stream_broken: what comes cannot be the session
    ├── CodecError           codec_failed: a codec server does not do what it is asked
    └── TransferError        transfer_failed: an export is not whole

What the gateway refuses has the codes of `wakeline.errors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from wakeline import errors
from wakeline.client.structs import SessionEvent
from wakeline.errors import WakelineError

NOT_A_GATEWAY: Final = (
    "See that the URL is a Wakeline gateway's, by default http://127.0.0.1:7777 and neither Temporal's port (7233) nor "
    "its web interface's (8233), and that nothing between here and the gateway answers in its place."
)


class RefusedError(WakelineError):
    """The gateway refused a request; `code`, `status`, `message`, `hint` and `details` are its own.

    What is raised is also of the class that the code has in `wakeline.errors`: `except SessionNotFoundError` and
    `except RefusedError` both catch a `session_not_found`.
    """

    def __init__(self, status: int, error: Mapping[str, Any]) -> None:
        details = {key: value for key, value in error.items() if key not in ("code", "message", "hint")}
        WakelineError.__init__(self, str(error.get("message", f"the gateway answered {status}")), **details)
        vars(self).update(details)  # such as `expected`, as the class of the code has them
        self.code = error.get("code", "unknown")  # type: ignore[misc] # what is fixed per class here comes by wire
        self.hint = error.get("hint", NOT_A_GATEWAY)
        self.status = status  # type: ignore[misc] # as above


class EventDataError(WakelineError):
    """An event's data is not what was asked for. The stream goes on: the next event can be awaited.

    Attributes:
        event: The event with its data as plain JSON; None where it is a payload that could not be decoded.
    """

    code = "event_data"
    hint = (
        "Ask for a type that this topic's events fit, or for fewer topics; the error's `event` has the data as it came."
    )

    def __init__(self, message: str, event: SessionEvent[Any]) -> None:
        super().__init__(message, offset=event.offset, topic=event.topic)
        self.event = event


class StreamBrokenError(WakelineError):
    """What comes cannot be the session: an event is missing, again and again, or it is no event stream at all."""

    code = "stream_broken"
    hint = "Check the proxies between this client and the gateway: one changes or drops events."


class CodecError(WakelineError):
    """A codec server refuses, or answers with something else than payloads."""

    code = "codec_failed"
    hint = "See that the URL is that of a codec server, and that the headers are what it asks for."


class TransferError(WakelineError):
    """An export is not whole."""

    code = "transfer_failed"
    hint = "Export again; nothing was kept of this one."


def refusal(status: int, error: Mapping[str, Any]) -> RefusedError:
    """The error of a refusal: of the class of its code, where there is one."""
    return _KINDS.get(str(error.get("code")), RefusedError)(status, error)


_KINDS: Final[dict[str, type[RefusedError]]] = {
    kind.code: type(kind.__name__, (RefusedError, kind), {"__doc__": kind.__doc__, "__module__": "wakeline.client"})
    for kind in vars(errors).values()
    # Not the root: its code is that of `InternalError`, which is the more precise class.
    if isinstance(kind, type) and issubclass(kind, WakelineError) and kind is not WakelineError and "code" in vars(kind)
}
