"""Who publishes under which name in this process: one at a time, and where the last one stopped."""

from __future__ import annotations

import os
import threading
from typing import Final, TypeAlias

from wakeline.publisher.errors import PublisherClashError
from wakeline.publisher.frames import Identity

_REMEMBERED: Final = 10_000
_Place: TypeAlias = tuple[str, str, str, int]


class Places:
    """The publishers that are open, and the last sequences of those that were."""

    def __init__(self) -> None:
        self._open: set[_Place] = set()
        self._left: dict[_Place, int | None] = {}
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        """In a forked process the lock may be held by a thread that it does not have."""
        self._lock = threading.Lock()

    def enter(self, url: str, identity: Identity, otherwise: int | None) -> int | None:
        """Take a place; returns where its attempt stands, as far as can be known here.

        Args:
            url: The gateway.
            identity: Who.
            otherwise: Where it stands if nobody was here before.

        Raises:
            PublisherClashError: Somebody is there: two under one name would take each other's events for repetitions.
        """
        place = _place(url, identity)
        with self._lock:
            if place in self._open:
                raise PublisherClashError(
                    f"expected one open publisher {identity.publisher!r} of session {identity.session!r} at a time, "
                    "there is one in this process"
                )
            self._open.add(place)
            return self._left.get(place, otherwise)

    def leave(self, url: str, identity: Identity, sequence: int | None) -> None:
        """Give a place back."""
        place = _place(url, identity)
        with self._lock:
            self._open.discard(place)
            self._left.pop(place, None)
            self._left[place] = sequence
            if len(self._left) > _REMEMBERED:
                del self._left[next(iter(self._left))]


def _place(url: str, identity: Identity) -> _Place:
    return (url, identity.session, identity.publisher, identity.attempt)
