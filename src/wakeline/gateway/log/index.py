"""The port that finds sessions by age, offsets by time or size, and publications."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from wakeline.gateway.log.values import Published, SessionState


class Index(ABC):
    """Finds sessions, offsets and publications faster than by reading all of them."""

    @abstractmethod
    async def newest(
        self, *, before: tuple[str, str] | None, limit: int, within: Sequence[str], contains: str
    ) -> list[SessionState]:
        """Return up to `limit` sessions, the newest first, without drafts.

        Args:
            before: Only sessions whose `created` and name are less than these; None for all.
            limit: The most sessions.
            within: Names, and prefixes that end in `*`.
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
