"""The root of the error tree, and the shape that every error has on the wire."""

from __future__ import annotations

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
