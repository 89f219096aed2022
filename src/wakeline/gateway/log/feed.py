"""Notifies listeners of commits in this process: to one session, or to all sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import structlog

from wakeline.events import Event
from wakeline.gateway.log.values import Change

Listener: TypeAlias = Callable[[str, str, Sequence[Event], Sequence[Change]], None]
"""Called in the event loop with a session, its epoch, new durable events, and changes."""

_log = structlog.get_logger(__name__)


class Commit(NamedTuple):
    """The new durable events and the changes of one life of a session."""

    session: str
    epoch: str
    events: Sequence[Event] = ()
    changes: Sequence[Change] = ()


class Feed:
    """Notifies listeners of each commit, in the order of the session's commits.

    The change `closed` follows the session's last event, and `deleted` precedes the first event of the next life. Each of
    them occurs at most once in a life.
    """

    def __init__(self) -> None:
        self._all: list[Callable[[Sequence[Commit]], None]] = []
        self._sessions: dict[str, list[Listener]] = {}

    def listen(self, listener: Callable[[Sequence[Commit]], None]) -> None:
        """Call `listener` with all commits that have become durable together.

        Retention, compaction, lifetimes and metrics need this: they also work on sessions that no device watches.
        """
        self._all.append(listener)

    def subscribe(self, session: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` after every commit to one session; return a function that ends this."""
        self._sessions.setdefault(session, []).append(listener)

        def unsubscribe() -> None:
            listeners = self._sessions.get(session, [])
            if listener in listeners:
                listeners.remove(listener)
                if not listeners:
                    del self._sessions[session]

        return unsubscribe

    def has_listener(self, session: str) -> bool:
        """Return whether anybody listens to this session alone."""
        return session in self._sessions

    def announce(self, session: str, epoch: str, events: Sequence[Event] = (), changes: Sequence[Change] = ()) -> None:
        """Call the listeners with new durable events and changes of a session."""
        self.announce_all((Commit(session, epoch, events, changes),))

    def announce_all(self, commits: Sequence[Commit]) -> None:
        """Call the listeners with commits that have become durable together."""
        for commit in commits:
            for listener in tuple(self._sessions.get(commit.session, ())):
                try:
                    listener(*commit)
                except Exception:  # noqa: BLE001 - one listener's defect must not keep the commit from the others
                    _log.exception("a listener failed", session=commit.session)
        for listen in tuple(self._all):
            try:
                listen(commits)
            except Exception:  # noqa: BLE001 - as above
                _log.exception("a listener failed", sessions=[commit.session for commit in commits][:10])
