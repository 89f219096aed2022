"""Errors of a gateway that cannot serve a request now, or that failed."""

from __future__ import annotations

from typing import Final

from wakeline.errors.base import WakelineError

_RETRY_SECONDS: Final = 2
_RETRY_IDEMPOTENT: Final = (
    "Retry with the same Wakeline-Publisher and Wakeline-Sequence: a second copy is never written."
)
_RETRY_PLAIN: Final = "Whether the events were written is unknown: read the session before you publish them again."


class UnavailableError(WakelineError):
    """A request that cannot be served now; the same request may succeed later.

    Attributes:
        logged: Whether the store's engine logs the outage that this error is part of, so that no other part needs to.
    """

    code, status = "unavailable", 503
    logged = False
    hint = "Check that the gateway runs and answers on /healthz, then try again."

    def headers(self) -> dict[str, str]:
        """Return the header with the seconds after which the request may be repeated."""
        return {"Retry-After": str(_RETRY_SECONDS)}


class TemporalUnavailableError(UnavailableError):
    """A request that needs Temporal, which cannot be reached or is not configured."""

    code, status = "temporal_unavailable", 503
    hint = "Try again later: the gateway reconnects automatically, and /readyz reports the state of Temporal."


class SessionImportingError(UnavailableError):
    """A write to a session that is being imported; nothing was written."""

    code, status = "session_importing", 503
    hint = "Retry when the import has ended, or use another name."

    @classmethod
    def of(cls, session: str) -> SessionImportingError:
        """Return the error for the session of this name."""
        return cls(f"expected a session that is not being imported, {session[:64]!r} is")


class StorageFailedError(UnavailableError):
    """A failure of the store, after which it is unknown whether a write took effect."""

    code, status = "storage_failed", 503
    hint = "Try again when the store is back; no acknowledged event is lost."

    @classmethod
    def of_outage(cls, message: str) -> StorageFailedError:
        """Return the error for a request during an outage that the engine logs."""
        error = cls(message)
        error.logged = True
        return error

    def for_publisher(self, *, idempotent: bool) -> StorageFailedError:
        """Return the same error with a hint for the publisher of a batch.

        Args:
            idempotent: Whether the batch has a publisher and a sequence.
        """
        if "hint" in vars(self) or type(self) is not StorageFailedError:
            return self
        return StorageFailedError(self.message, hint=_RETRY_IDEMPOTENT if idempotent else _RETRY_PLAIN)


class StorageLostError(StorageFailedError):
    """The loss of the store's files; nothing was written, and the gateway exits."""

    code, status = "storage_lost", 503
    hint = "Put the right files back while no gateway runs, without the -wal and -shm of others, then start the gateway again."


class StorageFullError(UnavailableError):
    """A write that was refused because the disk is full."""

    code, status = "storage_full", 507
    logged = True
    hint = "Make space or delete sessions, then retry; the gateway recovers automatically."


class RecordConflictError(WakelineError):
    """A change of a record that another writer has changed since it was read."""

    code, status = "record_conflict", 409
    hint = "Read the record again, then repeat the change on its new value."


class RecordTooLargeError(WakelineError):
    """A value that is over the greatest size of a record; nothing was written."""

    code, status = "record_too_large", 413
    hint = "If a session has thousands of open runs, follow further workflows into another session."


class InternalError(WakelineError):
    """A defect in the server."""

    code, status = "internal", 500
