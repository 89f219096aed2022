"""The state of an engine's store: whether it is writable, exists, and was restored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TypeAlias

from wakeline.errors import WakelineError
from wakeline.gateway.log.counts import Counts

Carry: TypeAlias = Callable[[str, bytes, Mapping[str, str]], tuple[str, bytes]]
"""Returns a record's key and value in the new epochs, given a mapping from the old ones."""


class Store:
    """The state of an engine's store; the defaults fit a store without files.

    Attributes:
        counts: Counters of stored state that callers cause.
    """

    def __init__(self) -> None:
        self.counts = Counts()
        self._lost_listeners: list[Callable[[WakelineError], None]] = []

    def listen_lost(self, listener: Callable[[WakelineError], None]) -> None:
        """Call `listener` when the store's files are lost; the engine then refuses all writes."""
        self._lost_listeners.append(listener)

    def _announce_lost(self, error: WakelineError) -> None:
        for listener in self._lost_listeners:
            listener(error)

    def health(self) -> str:
        """Return `ok`, or the reason why it cannot write: `full: …`, `failed: …` or `lost: …`."""
        return "ok"

    def log_bytes(self) -> int:
        """Return the size of the write-ahead log in bytes; 0 if there is none."""
        return 0

    def erasure_pending(self) -> float:
        """Return the seconds since the oldest deletion that is not erased from the files; 0 if none."""
        return 0.0


class Restorable(ABC):
    """A store whose files can be restored from a backup; an engine without files is none."""

    @property
    @abstractmethod
    def restored(self) -> bool:
        """Whether the files were restored: call `renew` before anything is served."""

    @abstractmethod
    async def renew(self, carry: Carry) -> None:
        """Give every session a new epoch, which refuses older cursors, and `carry` the records.

        Raises:
            UnavailableError: The store cannot be written now.
        """
