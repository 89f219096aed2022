"""The port that finds sessions by age, offsets by time or size, and publications."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from heapq import nlargest
from itertools import islice

from wakeline.gateway.log.values import Published, SessionState


def age_of(state: SessionState) -> tuple[str, str]:
    """Return what sessions are ordered by: when they were created, then their names."""
    return state.created, state.session


def newest_of(
    states: Iterable[SessionState], before: tuple[str, str] | None, limit: int, contains: str
) -> list[SessionState]:
    """Return the newest of some sessions in any order; see `Index.newest`."""
    found = (state for state in states if contains in state.session and (before is None or age_of(state) < before))
    return nlargest(limit, found, key=age_of)


def first_of(states: Iterator[SessionState], limit: int, contains: str) -> list[SessionState]:
    """Return the first of some sessions that are ordered already."""
    return list(islice((state for state in states if contains in state.session), limit))


class Index(ABC):
    """Finds sessions, offsets and publications faster than by reading all of them."""

    @abstractmethod
    async def newest(
        self,
        *,
        before: tuple[str, str] | None = None,
        limit: int = 100,
        within: Sequence[str] = ("*",),
        contains: str = "",
    ) -> list[SessionState]:
        """Return up to `limit` sessions, the newest first, without drafts.

        Args:
            before: Only sessions whose `created` and name are less than these; None for all.
            limit: The most sessions.
            within: Names, and prefixes that end in `*`. Default: all.
            contains: Only sessions whose names contain this text.
        """

    @abstractmethod
    async def offset_within(self, session: str, size: int, *, epoch: str) -> int:
        """Return the oldest offset from which the session's events have at most `size` bytes.

        Raises:
            SessionNotFoundError: There is no such session.
            EpochChangedError: It lives in another epoch.
        """

    @abstractmethod
    async def offset_at(self, session: str, moment: int, *, epoch: str) -> int:
        """Return the first kept offset at or after the first event since `moment`, or the end.

        Args:
            session: The session's name.
            moment: Unix time in milliseconds.
            epoch: The session's life.

        Raises:
            SessionNotFoundError: There is no such session.
            EpochChangedError: It lives in another epoch.
        """

    @abstractmethod
    async def published(self, session: str, offset: int, *, epoch: str) -> Published | None:
        """Return the publication of a kept event.

        Args:
            session: The session's name.
            offset: The event's offset.
            epoch: The session's life.

        Returns:
            The publication. None if the event has none, an attempt of its publisher has superseded it, or the position of its
            publisher was forgotten.

        Raises:
            SessionNotFoundError: There is no such session.
            EpochChangedError: It lives in another epoch.
        """
