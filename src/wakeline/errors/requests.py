"""Errors of requests that the caller can correct."""

from __future__ import annotations

from typing import Any

from wakeline.errors.base import WakelineError


class RequestError(WakelineError):
    """A request that cannot be accepted until its caller corrects it."""


class RequestInvalidError(RequestError):
    """A parameter, header or field with a value that it cannot have."""

    code, status = "request_invalid", 400
    hint = "Correct the parameter, header or field that the message names."


class BodyInvalidError(RequestError):
    """A body that is not the expected JSON."""

    code, status = "body_invalid", 400
    hint = "Send a body of the form that the message names."


class SchemaInvalidError(RequestError):
    """A JSON Schema that is not valid, or exceeds the limits on what it costs."""

    code, status = "schema_invalid", 400
    hint = (
        "Send a JSON Schema of at most 16 KiB, 500 subschemas and 50 patterns, each $ref within it replaced by its "
        "target; patterns are without look-around and back-references, and unevaluated… is refused."
    )


class ValueInvalidError(RequestError):
    """A value that its JSON Schema does not allow."""

    code, status = "value_invalid", 400
    hint = "Send a value that the schema allows; the message names the part that it does not allow."


class EncodingInvalidError(RequestError):
    """A body that is not in the coding that `Content-Encoding` names."""

    code, status = "encoding_invalid", 400
    hint = "Send the whole body in the coding that Content-Encoding names, or uncompressed and without that header."


class SessionNameInvalidError(RequestError):
    """A session's name that is empty or too long, or has control characters."""

    code, status = "session_name_invalid", 400
    hint = "A session's name is 1 to 512 bytes of UTF-8 without control characters."


class TopicInvalidError(RequestError):
    """A topic that is empty or too long, has control characters, or is one of Wakeline's own."""

    code, status = "topic_invalid", 400
    hint = "A topic is 1 to 256 bytes of UTF-8 without control characters or commas; those that begin with $ are Wakeline's own."


class CursorInvalidError(RequestError):
    """A cursor that is not of the form that gateways make."""

    code, status = "cursor_invalid", 400
    hint = "Pass a cursor back unchanged, or read from=beginning or from=now."

    @classmethod
    def of_beginning(cls, text: str) -> CursorInvalidError:
        """Return the error for a place to begin at that is none."""
        return cls(
            f"expected a cursor such as k3v7x2abqm-18, or beginning, now, tail:N, time:T or device, got {text[:64]!r}",
            hint="Pass a cursor back unchanged, or begin at beginning, now, tail:N (the last N events), time:T (RFC 3339, such "
            "as time:2026-11-21T05:14:43Z) or device (after the last event that the device has acknowledged).",
        )


class ImportInvalidError(RequestError):
    """An import of a file that is not a complete export."""

    code, status = "import_invalid", 400
    hint = "Send a file as GET …/export makes it, from its first line to its last. Nothing of this file was imported."


class OriginRefusedError(RequestError):
    """A request from a web page whose origin is not allowed."""

    code, status = "origin_refused", 403
    hint = "Call from a page of the gateway's own origin, or add the page's origin to cors_origins."


class TokenMissingError(RequestError):
    """A request without a token."""

    code, status = "token_missing", 401
    hint = "Send Authorization: Bearer …, the cookie wakeline_token, or ?ticket= from POST /v1/tickets."


class TokenInvalidError(RequestError):
    """A token or ticket that this gateway does not accept."""

    code, status = "token_invalid", 401
    hint = "Request a new one, made with the gateway's key, issuer and audience; `wakeline token` makes one for development."


class TokenExpiredError(RequestError):
    """A token that has expired."""

    code, status = "token_expired", 401
    hint = "Get a new token and continue from the last cursor."


class NotAllowedError(RequestError):
    """A request that the token does not allow."""

    code, status = "not_allowed", 403
    hint = "Use a token whose wakeline.allow and wakeline.topics name what this request does."


class NotFoundError(RequestError):
    """A request to a path without a route."""

    code, status = "not_found", 404
    hint = "Check the path; the gateway's routes begin with /v1/."


class SessionNotFoundError(RequestError):
    """A name that neither a session nor a workflow has."""

    code, status = "session_not_found", 404
    hint = (
        "A session begins with its first event, or, on a gateway with Temporal, with the workflow of its name. "
        "A token that does not reach it (its claim wakeline.sessions) is answered alike."
    )


class WorkflowNotFoundError(RequestError):
    """A Workflow Id that Temporal does not know."""

    code, status = "workflow_not_found", 404
    hint = "Check the Workflow Id and the namespace the gateway is connected to."


class NotificationNotFoundError(RequestError):
    """A notification that the session does not have, or has no more."""

    code, status = "notification_not_found", 404
    hint = "List them (`wakeline notifications list`, GET /v1/notifications); a session keeps its last 50 that are not pending."


class InputNotFoundError(RequestError):
    """A key that no input of the session has."""

    code, status = "input_not_found", 404
    hint = "Check the input's id; POST …/inputs with it sends the input."


class RequestNotFoundError(RequestError):
    """An id that no request for input of the session has."""

    code, status = "request_not_found", 404
    hint = "List the open requests (`wakeline requests list`, GET …/requests); a request is removed with its session."


class MethodNotAllowedError(RequestError):
    """A method that the route does not have."""

    code, status = "method_not_allowed", 405
    hint = "Use one of the methods that the answer's Allow names."


class RequestTimeoutError(RequestError):
    """A request whose headers or body were not sent in time."""

    code, status = "request_timeout", 408
    hint = "Send the request without pauses; header_timeout and body_timeout in the gateway's settings limit the wait."


class CursorAheadError(RequestError):
    """A cursor past the end of the session."""

    code, status = "cursor_ahead", 409
    hint = "This session did not make that cursor. Read from=beginning."


class EpochChangedError(RequestError):
    """A cursor of an earlier life of the session, or of the time before a restore."""

    code, status = "epoch_changed", 410
    hint = "Discard the events that you hold of this session and read from=beginning."


class SessionExistsError(RequestError):
    """A name that a session already has."""

    code, status = "session_exists", 409
    hint = "Delete it first, or take another name."


class InputConflictError(RequestError):
    """A key that another input of the session has."""

    code, status = "input_conflict", 409
    hint = "Make a new id for each input; send the same body again only to retry."


class RequestConflictError(RequestError):
    """An id that another request for input of the session has."""

    code, status = "request_conflict", 409
    hint = "Make a new id for each request; ask the same again only to retry."


class AlreadyResolvedError(RequestError):
    """An answer to a request that is closed, or that this person has answered differently.

    Args:
        message: The state of the request.
        outcome: The data of its `$input.resolved`; None while it is open.
    """

    code, status = "already_resolved", 409
    hint = "The first answer counts; show the outcome."

    def __init__(self, message: str, outcome: Any) -> None:
        super().__init__(message)
        if outcome is not None:
            self.details["outcome"] = outcome


class ClaimedError(RequestError):
    """A claim of a tool that another device runs.

    Args:
        message: The device.
        until: The time until which it is claimed.
    """

    code, status = "claimed", 409
    hint = "Wait until the time in until: the other device may have gone away then."

    def __init__(self, message: str, until: str) -> None:
        super().__init__(message, until=until)


class ClaimRequiredError(RequestError):
    """An answer to a tool from a device that does not run it."""

    code, status = "claim_required", 409
    hint = "Claim the request with this device first; if another one has claimed it since, discard the value."


class DigestChangedError(RequestError):
    """An answer whose digest is not that of the request."""

    code, status = "digest_changed", 409
    hint = "Show the request as it is now, and answer with the digest of what was shown."


class StaleError(RequestError):
    """An answer or input of a device that has not seen the session's latest events."""

    code, status = "stale", 409
    hint = "Show the events from offset on, and let the person decide again."


class RunClosedError(RequestError):
    """An input to a run that has ended."""

    code, status = "run_closed", 409
    hint = "Start the workflow again, or send the input to another run."


class StreamConflictError(RequestError):
    """A request that does not agree with a Durable Stream.

    It names another content type, lifetime or closure, or a `Stream-Seq` that is not after the last one.
    """

    code, status = "stream_conflict", 409
    hint = "Read the stream's state with HEAD, and send a request that agrees with it."


class OffsetGoneError(RequestError):
    """An offset of a Durable Stream, or a message of a chat, whose events retention has removed."""

    code, status = "offset_gone", 410
    hint = "Read from offset=-1, which is the oldest kept event, or from offset=now."


class BodyTooLargeError(RequestError):
    """A body over the limit."""

    code, status = "body_too_large", 413
    hint = "Send smaller batches, or raise max_body_bytes."


class EventTooLargeError(RequestError):
    """An event over the limit."""

    code, status = "event_too_large", 413
    hint = "Keep large values elsewhere and publish a reference, or raise max_event_bytes."


class BatchTooLargeError(RequestError):
    """A request with too many events."""

    code, status = "batch_too_large", 413
    hint = "Send the events in several batches, or raise max_batch_events."


class EncodingUnknownError(RequestError):
    """A body in a coding that this gateway cannot read."""

    code, status = "encoding_unknown", 415
    hint = "Compress the body with gzip or deflate, or send it uncompressed and without Content-Encoding."

    def headers(self) -> dict[str, str]:
        """Return the header that names the known codings."""
        return {"Accept-Encoding": "gzip, deflate"}


class ExpectationFailedError(RequestError):
    """A request whose `Expect` is not `100-continue`."""

    code, status = "expectation_failed", 417
    hint = "Leave Expect out, or send Expect: 100-continue."


class LimitReachedError(RequestError):
    """A request over a limit of connections, subscriptions or rate.

    Args:
        message: The limit.
        retry_after: Seconds to wait before the next request.
        hint: How to come below the limit; None for the usual hint.
    """

    code, status = "limit_reached", 429
    hint = "Wait for the seconds in Retry-After; the limits are in the gateway's settings."

    def __init__(self, message: str, *, retry_after: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, retry_after=retry_after)
        self.retry_after = retry_after


class NotImplementedHereError(RequestError):
    """A request of a public protocol's part that Wakeline does not implement."""

    code, status = "not_implemented", 501
    hint = "Omit this part of the protocol; streams can be created, appended to, read, closed and deleted."
