"""The names under which this process publishes, each with one open publisher at a time.

The last sequence number under each name is kept, so that the next publisher of the name can continue offline.
"""

from __future__ import annotations

import os
import threading
from typing import Final, TypeAlias

from wakeline.publisher.errors import PublisherClashError
from wakeline.publisher.frames import Identity

_REMEMBERED: Final = 10_000
_Place: TypeAlias = tuple[str, str, str, int]


class Places:
    """The open publishers, and the last sequence numbers of closed ones."""

    def __init__(self) -> None:
        self._open: set[_Place] = set()
        self._left: dict[_Place, int | None] = {}
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        """Replace the lock: in a forked process, a thread that does not exist there may hold it."""
        self._lock = threading.Lock()

    def enter(self, url: str, identity: Identity, otherwise: int | None) -> int | None:
        """Reserve a publisher's name; return its next sequence number, None if it is unknown.

        Args:
            url: The gateway.
            identity: The publisher.
            otherwise: The next sequence number if no publisher of this process had the name before.

        Raises:
            PublisherClashError: A publisher of this name is open. With two of them, the gateway would discard events of
                one as duplicates of the other's.
        """
        place = _place(url, identity)
        with self._lock:
            if place in self._open:
                raise PublisherClashError(
                    f"expected one open publisher {identity.publisher!r} of session {identity.session!r} at a time, "
                    "got a second one in this process"
                )
            self._open.add(place)
            return self._left.get(place, otherwise)

    def leave(self, url: str, identity: Identity, sequence: int | None) -> None:
        """Release a publisher's name, and remember its next sequence number."""
        place = _place(url, identity)
        with self._lock:
            self._open.discard(place)
            self._left.pop(place, None)
            self._left[place] = sequence
            if len(self._left) > _REMEMBERED:
                del self._left[next(iter(self._left))]


def _place(url: str, identity: Identity) -> _Place:
    return (url, *identity.key)
