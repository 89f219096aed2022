"""The callback after a batch was accepted: a client's own, else the one around it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeAlias

OnFlushed: TypeAlias = Callable[[str], None]
"""Called with the Workflow Id, in the thread that sends; it must not wait."""

surrounding_on_flushed: ContextVar[OnFlushed | None] = ContextVar("wakeline_on_flushed", default=None)
"""The callback of clients without their own: `WakelinePlugin` sets it around each activity."""
