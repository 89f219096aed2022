"""Appends Wakeline's own events of a run to its session, each once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
import structlog

from wakeline.errors import EpochChangedError, SessionClosedError, UnavailableError
from wakeline.events import MAX_KEY_BYTES, NewEvent, compose, timestamp
from wakeline.gateway.delivery import Accept
from wakeline.gateway.log import Publication
from wakeline.gateway.runtime import log_failure
from wakeline.presentable import converted

RETRY_SECONDS: Final = 1.0
_log = structlog.get_logger(__name__)
T = TypeVar("T")


class Teller:
    """Appends events about one run.

    Args:
        session: Where they go.
        run: The run's name.
        accept: The way into the log.
        epoch: The life of the session that the run belongs to; None if `begin` is to find that.

    Attributes:
        epoch: The life, once it is known.
    """

    def __init__(self, session: str, run: str, accept: Accept, epoch: str | None = None) -> None:
        self.session = session
        self.epoch = epoch
        self._run = run
        self._accept = accept

    async def begin(self, publisher: str) -> bool:
        """Learn the session's life; return whether something was appended under this name.

        Raises:
            EpochChangedError: The session was deleted; no event of the run may begin it again.
        """
        state = await self._until_done("cannot read the log now", partial(self._accept.state, self.session, publisher))
        if state is None or self.epoch not in (None, state.epoch):
            raise EpochChangedError(f"expected session {self.session!r}, it was deleted")
        self.epoch = state.epoch
        return state.position is not None

    async def tell(self, publisher: str, *events: NewEvent) -> None:
        """Append events under a name that only they have; none to a session that was closed.

        Raises:
            EpochChangedError: The session was deleted.
        """
        append = partial(self._accept.append, self.session, events, Publication(publisher), epoch=self.epoch)
        with suppress(SessionClosedError):
            told = await self._until_done("cannot write to the log now", append)
            self.epoch = told.epoch  # what follows belongs to this life of the session

    async def _until_done(self, failed: str, work: Callable[[], Awaitable[T]]) -> T:
        """Use the log; log this failure, and try again, while it cannot be used."""
        while True:
            try:
                return await work()
            except UnavailableError as error:
                log_failure(_log, failed, error, session=self.session)
                await asyncio.sleep(RETRY_SECONDS)

    async def told(self, publisher: str) -> bool:
        """Return whether something was appended under this name."""
        return await self._accept.position(self.session, publisher) is not None

    def event(self, topic: str, data: dict[str, Any], *, key: str | None = None) -> NewEvent:
        """Compose an event of the run; a key that is too long is cut."""
        kept = None if key is None else key.encode()[:MAX_KEY_BYTES].decode(errors="ignore")
        return compose(topic, converted(msgspec.json.encode, data), time=timestamp(), run=self._run, key=kept)
