"""Errors of the gateway's own: it cannot serve a request now, or it failed."""

from __future__ import annotations

from wakeline.errors.base import WakelineError


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
