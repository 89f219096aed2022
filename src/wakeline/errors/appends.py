"""Errors of appends that the log refuses."""

from __future__ import annotations

from wakeline.errors.base import WakelineError


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
