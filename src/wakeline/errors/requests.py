"""Errors of requests that the caller can correct."""

from __future__ import annotations

from wakeline.errors.base import WakelineError


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
