"""What was not delivered, until somebody was told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from wakeline.errors import WakelineError
from wakeline.logs import get_logger
from wakeline.publisher.errors import PublishDroppedError

logger = get_logger(__name__)


class Reports:
    """Collects events that were not delivered, and tells of them once.

    Args:
        name: Whose they are, for messages.
        on_dropped: Is told; without it the next publish, flush or close raises.
    """

    def __init__(self, name: str, on_dropped: Callable[[PublishDroppedError], Any] | None) -> None:
        self._name = name
        self._on_dropped = on_dropped
        self._pending: list[tuple[WakelineError | None, str, list[bytes]]] = []
        self._ended: PublishDroppedError | None = None
        self.any = False
        """Whether `raise_next` would raise."""

    @property
    def is_ended(self) -> bool:
        """Whether nothing will be delivered any more."""
        return self._ended is not None

    def add(self, bodies: Sequence[bytes], what: str, reason: WakelineError | None = None) -> None:
        """Note events that were not delivered.

        Args:
            bodies: The events.
            what: What was done with them, such as `were given up`.
            reason: Why, where there is an error that tells.
        """
        if self._on_dropped is not None:
            if bodies or reason is not None:
                self._tell(self._error(reason, what, bodies), self._on_dropped)
            return
        if not bodies and reason is None:
            return
        if self._pending:
            last, said, before = self._pending[-1]
            if said == what and type(last) is type(reason):
                before.extend(bodies)
                return
        else:
            logger.warning("%s: events %s: %s", self._name, what, reason)
        self._pending.append((reason, what, list(bodies)))
        self.any = True

    def end(self, reason: WakelineError, bodies: Sequence[bytes]) -> None:
        """Nothing will be delivered any more: whatever is asked from now on is answered by this."""
        self._ended = PublishDroppedError.because_of(reason, "", ())
        self.add(bodies, "were refused", reason)
        self.any = True

    def take(self) -> PublishDroppedError | None:
        """The next report, oldest first."""
        if self._pending:
            reason, what, bodies = self._pending.pop(0)
            self.any = bool(self._pending) or self._ended is not None
            return self._error(reason, what, bodies)
        return None if self._ended is None else self._ended.again()

    def raise_next(self) -> None:
        """Tell, where there is something to tell.

        Raises:
            PublishDroppedError: There is.
        """
        if self.any and (report := self.take()) is not None:
            raise report

    def _error(self, reason: WakelineError | None, what: str, bodies: Sequence[bytes]) -> PublishDroppedError:
        said = f"{len(bodies)} events of {self._name} {what}"
        if reason is None:
            return PublishDroppedError(said, bodies=bodies)
        return PublishDroppedError.because_of(reason, said, bodies)

    def _tell(self, report: PublishDroppedError, on_dropped: Callable[[PublishDroppedError], Any]) -> None:
        try:
            on_dropped(report)
        except Exception:
            logger.exception("on_dropped of %s failed", self._name)
