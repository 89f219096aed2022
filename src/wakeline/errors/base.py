"""The root of the error tree, and the shape of every error on the wire."""

from __future__ import annotations

from typing import Any, ClassVar


class WakelineError(Exception):
    """The base class of all errors of Wakeline.

    Attributes:
        code: Stable name of the error, `snake_case`.
        status: HTTP status of the answer.
        hint: How the caller can correct it; the class's hint, unless this error has its own.
        message: The expected value and the one that came.
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
        """Return the message and the hint: a workflow's history shows only this text of an error."""
        return f"{self.message}. {self.hint}"

    def headers(self) -> dict[str, str]:
        """Return the headers that its answer has in addition to the usual ones."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {"Retry-After": str(self.details["retry_after"])} if "retry_after" in self.details else {}

    def wire(self) -> dict[str, dict[str, int | str]]:
        """Return the JSON object that every endpoint answers with."""
        return {"error": {"code": self.code, "message": self.message, "hint": self.hint, **self.details}}
