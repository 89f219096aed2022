"""Reports of undelivered events, for every publisher."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from wakeline.logs import get_logger

T = TypeVar("T")
E = TypeVar("E", bound=Exception)

MakeReport: TypeAlias = Callable[[Any, str, Sequence[T]], E]
"""Makes the error of a report from its reason, its verb phrase such as `were refused`, and its events."""

logger = get_logger(__name__)


class Reports(Generic[T, E]):
    """The undelivered events of one publisher, each reported once: by a callback or by an error.

    Any thread may add and take reports.

    Args:
        owner: The destination of the events, for log lines.
        make: Makes the error of a report; without events, of the reason alone.
        on_dropped: The callback; without it the next publish, flush or close raises the error.

    Attributes:
        any: Whether `raise_next` would raise.
    """

    def __init__(self, owner: str, make: MakeReport[T, E], on_dropped: Callable[[E], Any] | None) -> None:
        self._owner = owner
        self._make = make
        self._on_dropped = on_dropped
        self._lock = threading.RLock()
        self._pending: list[tuple[Exception | None, str, list[T]]] = []
        self._end: Exception | None = None
        self.any = False

    @property
    def is_ended(self) -> bool:
        """Whether delivery has ended and cannot begin again."""
        return self._end is not None

    def add(self, events: Sequence[T], what: str, reason: Exception | None = None) -> None:
        """Report events that were not delivered.

        Args:
            events: The events.
            what: The verb phrase of the report, such as `were refused`.
            reason: The error that prevented their delivery, if there is one.
        """
        if not events and reason is None:
            return
        if self._on_dropped is not None:
            try:
                self._on_dropped(self._make(reason, what, events))
            except Exception:
                logger.exception("on_dropped of %s failed", self._owner)
            return
        with self._lock:
            if self._pending:
                last, said, before = self._pending[-1]
                if said == what and type(last) is type(reason):
                    before.extend(events)
                    return
            else:
                because = "" if reason is None else f": {reason}"
                logger.warning("%s: %d events %s%s", self._owner, len(events), what, because)
            self._pending.append((reason, what, list(events)))
            self.any = True

    def end(self, reason: Exception, events: Sequence[T]) -> None:
        """Report the end of delivery: every later call raises the reason."""
        self._end = reason
        self.add(events, "were refused", reason)
        self.any = True

    def take(self) -> E | None:
        """Take out the oldest report; None if there is none."""
        with self._lock:
            if self._pending:
                pending = self._pending.pop(0)
                self.any = bool(self._pending) or self._end is not None
                return self._make(*pending)
        return None if self._end is None else self._make(self._end, "", ())

    def raise_next(self) -> None:
        """Raise the oldest report, if there is one."""
        if self.any and (report := self.take()) is not None:
            raise report
