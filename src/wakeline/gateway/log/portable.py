"""The port of stores that can be moved: what the other ports do not show of a session."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec

from wakeline.gateway.log.values import SessionState


class StoredPublisher(msgspec.Struct, frozen=True, array_like=True):
    """A publisher of a session, as a store has it.

    Attributes:
        name: Its name.
        attempt: Its present attempt.
        owner: The text of its owner; None if it has none.
        stretches: Those of the present attempt: first and next sequence, first and next offset, and whether it is rough.
        kept: The events of earlier attempts that are still valid: first and next offset, and whether it is rough.
    """

    name: str
    attempt: int
    owner: str | None
    stretches: tuple[tuple[int, int, int, int, bool], ...]
    kept: tuple[tuple[int, int, bool], ...]


class Portable(ABC):
    """A store that can be moved to another one; no gateway may run on either."""

    @abstractmethod
    async def publishers(self, session: str, *, epoch: str, after: str = "", limit: int = 100) -> list[StoredPublisher]:
        """Return a session's publishers whose names sort after `after`, in the order of code points."""

    @abstractmethod
    async def order(self, session: str, *, epoch: str) -> str:
        """Return the last `Stream-Seq` of a session; empty if there is none."""

    @abstractmethod
    async def add_publishers(self, session: str, publishers: Sequence[StoredPublisher], *, epoch: str) -> None:
        """Add publishers to a draft that does not have them."""

    @abstractmethod
    async def adopt(self, session: str, state: SessionState, order: str, *, epoch: str) -> None:
        """Turn a draft into the session that it is a copy of, with that one's epoch and age.

        Args:
            session: The session's name.
            state: The state that it has in the other store.
            order: Its last `Stream-Seq` there.
            epoch: The draft's epoch.

        Raises:
            SessionNotFoundError: There is no such draft.
        """
