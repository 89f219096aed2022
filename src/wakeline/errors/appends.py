"""Errors of appends that the log refuses."""

from __future__ import annotations

from wakeline.errors.base import WakelineError


class AppendError(WakelineError):
    """An append that the log refuses."""


class SequenceGapError(AppendError):
    """A batch before which events of its publisher are missing.

    Args:
        message: The sequence that was expected, and the one that came.
        expected: The sequence that the log expects next.
    """

    code, status = "sequence_gap", 409
    hint = (
        "Send the events from `expected` on. If later events had been acknowledged, the gateway's data were restored from a"
        " backup: publish the events after it again where they matter."
    )

    def __init__(self, message: str, *, expected: int) -> None:
        super().__init__(message, expected=expected)
        self.expected = expected


class AttemptFencedError(AppendError):
    """An append of an attempt whose publisher has begun a later attempt.

    Args:
        message: The attempt that was expected, and the one that came.
        attempt: The publisher's latest attempt.
    """

    code, status = "attempt_fenced", 409
    hint = "Stop: another attempt has taken over, and no events of this one will be accepted again."

    def __init__(self, message: str, *, attempt: int) -> None:
        super().__init__(message, attempt=attempt)
        self.attempt = attempt


class PublisherTakenError(AppendError):
    """A use of a publisher that belongs to the `sub` of another token."""

    code, status = "publisher_taken", 403
    hint = (
        "Use another publisher's name, a token of the same sub and topics, or one whose wakeline.publishers names it."
    )


class TooManyPublishersError(AppendError):
    """A new publisher of a token whose `sub` has reached its limit of publishers in the session."""

    code, status = "too_many_publishers", 409
    hint = (
        "Append as a publisher that you have already opened, without a publisher, or to another session; or use a token "
        "whose wakeline.publishers names the publisher."
    )


class SessionClosedError(AppendError):
    """An append to a closed session."""

    code, status = "session_closed", 409
    hint = "Publish to another session."


class SessionDeletedError(AppendError):
    """An append to a session that was deleted after its publisher had opened it."""

    code, status = "session_deleted", 410
    hint = (
        "Stop, or start as a new publisher: open without `epoch`, at sequence 0. That creates the session again."
        " A session or publisher that is missing from a restored backup has the same answer."
    )
