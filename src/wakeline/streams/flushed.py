"""Who is told that a batch was taken: what a client was given, or else what surrounds it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeAlias

OnFlushed: TypeAlias = Callable[[str], None]
"""Is called with the Workflow Id, in the thread that sends; it must not wait."""

surrounding_on_flushed: ContextVar[OnFlushed | None] = ContextVar("wakeline_on_flushed", default=None)
"""What clients tell that are made here and were given none: `WakelinePlugin` sets it around each activity."""
