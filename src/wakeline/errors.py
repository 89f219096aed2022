"""The errors of Wakeline: one tree, one code each, one thing to do about each.

    WakelineError
    ├── RequestError                 what came in cannot be taken
    │   ├── RequestInvalidError        400 request_invalid
    │   ├── BodyInvalidError           400 body_invalid
    │   ├── EncodingInvalidError       400 encoding_invalid
    │   ├── SessionNameInvalidError    400 session_name_invalid
    │   ├── TopicInvalidError          400 topic_invalid
    │   ├── CursorInvalidError         400 cursor_invalid
    │   ├── ImportInvalidError         400 import_invalid
    │   ├── TokenMissingError          401 token_missing
    │   ├── TokenInvalidError          401 token_invalid
    │   ├── TokenExpiredError          401 token_expired
    │   ├── OriginRefusedError         403 origin_refused
    │   ├── NotAllowedError            403 not_allowed
    │   ├── NotFoundError              404 not_found
    │   ├── SessionNotFoundError       404 session_not_found
    │   ├── WorkflowNotFoundError      404 workflow_not_found
    │   ├── MethodNotAllowedError      405 method_not_allowed
    │   ├── RequestTimeoutError        408 request_timeout
    │   ├── CursorAheadError           409 cursor_ahead
    │   ├── SessionExistsError         409 session_exists
    │   ├── StreamConflictError        409 stream_conflict
    │   ├── EpochChangedError          410 epoch_changed
    │   ├── OffsetGoneError            410 offset_gone
    │   ├── BodyTooLargeError          413 body_too_large
    │   ├── EventTooLargeError         413 event_too_large
    │   ├── BatchTooLargeError         413 batch_too_large
    │   ├── EncodingUnknownError       415 encoding_unknown
    │   ├── ExpectationFailedError     417 expectation_failed
    │   ├── LimitReachedError          429 limit_reached
    │   └── NotImplementedHereError    501 not_implemented
    ├── AppendError                  the log refuses an append
    │   ├── SequenceGapError           409 sequence_gap
    │   ├── AttemptFencedError         409 attempt_fenced
    │   ├── PublisherTakenError        403 publisher_taken
    │   ├── TooManyPublishersError     409 too_many_publishers
    │   ├── SessionClosedError         409 session_closed
    │   └── SessionDeletedError        410 session_deleted
    ├── UnavailableError             503 unavailable: not now
    │   ├── TemporalUnavailableError   503 temporal_unavailable
    │   ├── SessionImportingError      503 session_importing
    │   ├── StorageFailedError         503 storage_failed
    │   │   └── StorageLostError         503 storage_lost
    │   └── StorageFullError           507 storage_full
    ├── RecordConflictError            409 record_conflict (a compare-and-set lost)
    ├── InternalError                  500 internal
    └── StartupError                 the server cannot start as asked
        ├── SettingsInvalidError       settings_invalid
        ├── ListenRefusedError         listen_refused
        ├── DataInUseError             data_in_use
        ├── SchemaTooNewError          schema_too_new
        └── ProgramMissingError        program_missing

Every error crosses the wire in one shape, `{"error": {"code", "message", "hint"}}`, see PROTOCOL.md §11.
"""

from __future__ import annotations

import errno
import os
from typing import Any, ClassVar


class WakelineError(Exception):
    """Anything Wakeline refuses or cannot do.

    Attributes:
        code: Stable name of the error, `snake_case`.
        status: HTTP status it is answered with.
        hint: What the caller can do about it; the class's, unless this error has one of its own.
        message: What was expected and what came.
        details: Further fields of the wire form, such as `expected`.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    hint: str = "Check the server's log at the time of this answer."

    def __init__(self, message: str, *, hint: str | None = None, **details: int | str) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint
        self.message = message
        self.details: dict[str, Any] = details

    def __str__(self) -> str:
        """The message and the hint: a workflow's history, for one, shows nothing else of an error."""
        return f"{self.message}. {self.hint}"

    def headers(self) -> dict[str, str]:
        """Headers that its answer carries, beside the usual ones."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {"Retry-After": str(self.details["retry_after"])} if "retry_after" in self.details else {}

    def wire(self) -> dict[str, dict[str, int | str]]:
        """The one error shape of every endpoint."""
        return {"error": {"code": self.code, "message": self.message, "hint": self.hint, **self.details}}


class RequestError(WakelineError):
    """What came in cannot be taken."""


class RequestInvalidError(RequestError):
    """A parameter or header is not what it must be."""

    code, status = "request_invalid", 400
    hint = "Correct the parameter, header or field that the message names."


class BodyInvalidError(RequestError):
    """The body is not the JSON that was expected."""

    code, status = "body_invalid", 400
    hint = "Send a body as the message expects it."


class EncodingInvalidError(RequestError):
    """The body is not in the coding that `Content-Encoding` names."""

    code, status = "encoding_invalid", 400
    hint = "Send the whole body in the coding that Content-Encoding names, or uncompressed and without that header."


class SessionNameInvalidError(RequestError):
    """A session's name is empty, too long, or has control characters."""

    code, status = "session_name_invalid", 400
    hint = "A session's name is 1 to 512 bytes of UTF-8 without control characters."


class TopicInvalidError(RequestError):
    """A topic is empty, too long, has control characters, or is one of Wakeline's own."""

    code, status = "topic_invalid", 400
    hint = "A topic is 1 to 256 bytes of UTF-8 without control characters or commas; those that begin with $ are Wakeline's own."


class CursorInvalidError(RequestError):
    """A cursor is not one that this server makes."""

    code, status = "cursor_invalid", 400
    hint = "Pass a cursor back as it came, or read from=beginning or from=now."


class ImportInvalidError(RequestError):
    """What is to be imported is not a whole export."""

    code, status = "import_invalid", 400
    hint = "Send a file as GET …/export makes it, from its first line to its last. Nothing was made of this one."


class OriginRefusedError(RequestError):
    """The request comes from a web page that is not allowed here."""

    code, status = "origin_refused", 403
    hint = "Call from a page of the gateway's own origin, or add the page's origin to cors_origins."


class TokenMissingError(RequestError):
    """The request carries no token."""

    code, status = "token_missing", 401
    hint = "Send Authorization: Bearer …, the cookie wakeline_token, or ?ticket= from POST /v1/tickets."


class TokenInvalidError(RequestError):
    """A token or ticket is not one that this gateway takes."""

    code, status = "token_invalid", 401
    hint = (
        "Have a new one made with the gateway's key, issuer and audience; `wakeline token` makes one for development."
    )


class TokenExpiredError(RequestError):
    """A token's time is over."""

    code, status = "token_expired", 401
    hint = "Get a new token and go on from the last cursor."


class NotAllowedError(RequestError):
    """The token does not allow this."""

    code, status = "not_allowed", 403
    hint = "Use a token whose wakeline.allow and wakeline.topics name what this request does."


class NotFoundError(RequestError):
    """There is no such route."""

    code, status = "not_found", 404
    hint = "Check the path; the gateway's routes begin with /v1/."


class SessionNotFoundError(RequestError):
    """Neither a session nor a workflow has this name."""

    code, status = "session_not_found", 404
    hint = (
        "A session begins with its first event, or, on a gateway with Temporal, with the workflow of its name. "
        "A token that does not reach it (its claim wakeline.sessions) is answered alike."
    )


class WorkflowNotFoundError(RequestError):
    """Temporal knows no workflow of this id."""

    code, status = "workflow_not_found", 404
    hint = "Check the Workflow Id and the namespace the gateway is connected to."


class MethodNotAllowedError(RequestError):
    """The route exists, the method does not."""

    code, status = "method_not_allowed", 405
    hint = "Use one of the methods that the answer's Allow names."


class RequestTimeoutError(RequestError):
    """The request's headers or body were not sent in time."""

    code, status = "request_timeout", 408
    hint = "Send the request without pauses; header_timeout and body_timeout in the gateway's settings tell how long it waits."


class CursorAheadError(RequestError):
    """A cursor is past the end of the session."""

    code, status = "cursor_ahead", 409
    hint = "This session did not make that cursor. Read from=beginning."


class EpochChangedError(RequestError):
    """The cursor is of an earlier life of the session, or from before a restore."""

    code, status = "epoch_changed", 410
    hint = "Discard what you hold of this session and read from=beginning."


class SessionExistsError(RequestError):
    """There is a session of this name already."""

    code, status = "session_exists", 409
    hint = "Delete it first, or take another name."


class StreamConflictError(RequestError):
    """A Durable Stream is not as the request says: its content type, lifetime or closure, or its last `Stream-Seq`."""

    code, status = "stream_conflict", 409
    hint = "Ask with HEAD how the stream is, and send what agrees with it."


class OffsetGoneError(RequestError):
    """Retention has taken what a Durable Stream was to be read from."""

    code, status = "offset_gone", 410
    hint = "Read from offset=-1, which is the oldest that is kept, or from offset=now."


class BodyTooLargeError(RequestError):
    """The request's body is over the limit."""

    code, status = "body_too_large", 413
    hint = "Send smaller batches, or raise max_body_bytes."


class EventTooLargeError(RequestError):
    """One event is over the limit."""

    code, status = "event_too_large", 413
    hint = "Keep large values elsewhere and publish a reference, or raise max_event_bytes."


class BatchTooLargeError(RequestError):
    """One request has too many events."""

    code, status = "batch_too_large", 413
    hint = "Send the events in several batches, or raise max_batch_events."


class EncodingUnknownError(RequestError):
    """The body is in a coding that this gateway cannot read."""

    code, status = "encoding_unknown", 415
    hint = "Compress the body with gzip or deflate, or send it uncompressed and without Content-Encoding."

    def headers(self) -> dict[str, str]:
        """Name the codings that are known."""
        return {"Accept-Encoding": "gzip, deflate"}


class ExpectationFailedError(RequestError):
    """The request's `Expect` is not `100-continue`."""

    code, status = "expectation_failed", 417
    hint = "Leave Expect out, or send Expect: 100-continue."


class LimitReachedError(RequestError):
    """A limit of connections, subscriptions or rate is reached."""

    code, status = "limit_reached", 429
    hint = "Wait for as many seconds as Retry-After says; the limits are in the gateway's settings."

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message, retry_after=retry_after)
        self.retry_after = retry_after


class NotImplementedHereError(RequestError):
    """A part of a public protocol that Wakeline does not have."""

    code, status = "not_implemented", 501
    hint = "Leave this part of the protocol out; streams are created, appended to, read, closed and deleted here."


class AppendError(WakelineError):
    """The log refuses an append."""


class SequenceGapError(AppendError):
    """Events between the last one appended and this batch are missing."""

    code, status = "sequence_gap", 409
    hint = (
        "Send the events from `expected` on. If more had been acknowledged, the gateway's data were restored from a backup:"
        " publish what came after it again where it matters."
    )

    def __init__(self, message: str, *, expected: int) -> None:
        super().__init__(message, expected=expected)
        self.expected = expected


class AttemptFencedError(AppendError):
    """A later attempt of this publisher has appended."""

    code, status = "attempt_fenced", 409
    hint = "Stop: another attempt has taken over, and nothing of this one will be taken again."

    def __init__(self, message: str, *, attempt: int) -> None:
        super().__init__(message, attempt=attempt)
        self.attempt = attempt


class PublisherTakenError(AppendError):
    """The publisher belongs to the `sub` of another token."""

    code, status = "publisher_taken", 403
    hint = (
        "Use another publisher's name, a token of the same sub and topics, or one whose wakeline.publishers names it."
    )


class TooManyPublishersError(AppendError):
    """The token's `sub` has opened as many publishers in the session as it may."""

    code, status = "too_many_publishers", 409
    hint = (
        "Append as a publisher that you have opened already, without one, to another session, or with a token whose "
        "wakeline.publishers names the publisher."
    )


class SessionClosedError(AppendError):
    """Nothing can be appended to this session any more."""

    code, status = "session_closed", 409
    hint = "Publish to another session."


class SessionDeletedError(AppendError):
    """The session that this publisher had opened was deleted."""

    code, status = "session_deleted", 410
    hint = (
        "Stop, or start as a new publisher: open without `epoch`, at sequence 0. That creates the session again."
        " A session or publisher that a restored backup does not have is answered alike."
    )


class UnavailableError(WakelineError):
    """Not now; the same request may succeed later."""

    code, status = "unavailable", 503
    hint = "See that the gateway runs and answers on /healthz, then try again."


class TemporalUnavailableError(UnavailableError):
    """Temporal is needed for this and cannot be reached, or is not configured."""

    code, status = "temporal_unavailable", 503
    hint = "Try again later: the gateway reconnects by itself, and /readyz reports the state of Temporal."


class SessionImportingError(UnavailableError):
    """The session is being imported; nothing was written."""

    code, status = "session_importing", 503
    hint = "Retry when the import has ended, or use another name."

    @classmethod
    def of(cls, session: str) -> SessionImportingError:
        """Return the error for a session by its name."""
        return cls(f"expected a session that is not being imported, {session[:64]!r} is")


class StorageFailedError(UnavailableError):
    """The store failed; whether a write took effect is unknown."""

    code, status = "storage_failed", 503
    hint = "Retry with the same Wakeline-Publisher and Wakeline-Sequence: a second copy is never written."


class StorageLostError(StorageFailedError):
    """The store's files were deleted or replaced; nothing was written, and the gateway ends."""

    code, status = "storage_lost", 503
    hint = "Put the right files back while no gateway runs, without the -wal and -shm of others, then start the gateway again."


class StorageFullError(UnavailableError):
    """The disk is full; nothing was written."""

    code, status = "storage_full", 507
    hint = "Make space or delete sessions, then retry; the gateway recovers by itself."


class RecordConflictError(WakelineError):
    """A keyed record was changed by somebody else since it was read."""

    code, status = "record_conflict", 409
    hint = "Read the record again and decide anew."


class InternalError(WakelineError):
    """A defect in the server."""

    code, status = "internal", 500


class StartupError(WakelineError):
    """The server cannot start as asked."""


class SettingsInvalidError(StartupError):
    """A setting is unknown or has a value it cannot have."""

    code = "settings_invalid"
    hint = "Correct the setting that the message names, in the command line, the environment (WAKELINE_…) or the file."


class ListenRefusedError(StartupError):
    """The address may not be listened on."""

    code = "listen_refused"
    hint = "Listen on another address or port, with --host and --port."

    @classmethod
    def of(cls, host: str, port: int, error: OSError | OverflowError, option: str = "--port") -> ListenRefusedError:
        """Return the error of an address that cannot be listened on.

        Args:
            host: The address.
            port: The port.
            error: The system's error.
            option: The option of the command that names the port.
        """
        number = error.errno if isinstance(error, OSError) else None
        match number:
            case None:
                hint = f"Give {option} a port from 0 to 65535."
            case errno.EADDRINUSE:
                hint = f"Stop the program that listens there, or give {option} another port; 0 takes a free one."
            case errno.EACCES:
                hint = f"Give {option} a port of 1024 or more, or let this program bind lower ones."
            case _:
                hint = "Give an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all of them."
        said = os.strerror(number) if number and number > 0 else str(error)
        return cls(f"cannot listen on {host}:{port}: {said}", hint=hint)


class DataInUseError(StartupError):
    """Another process has this data directory."""

    code = "data_in_use"
    hint = "Stop the other gateway, or give this one a --data directory of its own."


class SchemaTooNewError(StartupError):
    """The database was written by a newer Wakeline."""

    code = "schema_too_new"
    hint = "Run the newer Wakeline on this data directory; nothing was changed."


class ProgramMissingError(StartupError):
    """A program that this command starts is not installed."""

    code = "program_missing"
    hint = "Install it as the message says."
