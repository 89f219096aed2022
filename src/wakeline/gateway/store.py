"""How what sessions are kept in is doing, whatever it is: whether it can be written, is still there, and was restored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from wakeline.errors import WakelineError
from wakeline.gateway.counts import Counts

Carry: TypeAlias = Callable[[str, bytes, Mapping[str, str]], tuple[str, bytes]]
"""Gives a record's key and value in the sessions' new epochs, which it is given by the old ones."""


class Store:
    """What every engine says of itself; an engine that has no files, such as `memory`, says nothing else than this.

    Attributes:
        counts: Told what callers make it keep.
    """

    def __init__(self) -> None:
        self.counts = Counts()
        self._lost_listeners: list[Callable[[WakelineError], None]] = []

    def listen_lost(self, listener: Callable[[WakelineError], None]) -> None:
        """Have `listener` called if what the sessions are kept in is taken away: the engine writes nothing any more."""
        self._lost_listeners.append(listener)

    def _announce_lost(self, error: WakelineError) -> None:
        for listener in self._lost_listeners:
            listener(error)

    def health(self) -> str:
        """`ok`, or what is wrong with writing: `full: …`, `failed: …` or `lost: …`."""
        return "ok"

    def log_bytes(self) -> int:
        """How large the write-ahead log is; 0 where there is none."""
        return 0

    @property
    def restored(self) -> bool:
        """What is here is an older state, which was restored: `renew` is to be called before anybody is served."""
        return False

    async def renew(self, carry: Carry) -> None:
        """Give every session another epoch, so that no cursor from before is served, and `carry` the records over.

        Raises:
            UnavailableError: It cannot be done now.
        """
        raise NotImplementedError("expected an engine whose `restored` may be true")
