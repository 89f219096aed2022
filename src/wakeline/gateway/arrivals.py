"""A reader comes to a session: its workflow, if it has one, is followed from now on; or it is waited for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from wakeline.errors import TemporalUnavailableError
from wakeline.gateway.grants import Grant
from wakeline.gateway.log import Engine


class Arrivals:
    """Where every reader passes before a session is opened to it.

    Args:
        engine: The log.
        watch: Sees that the workflow of a session's name is followed; None where there is no Temporal.
    """

    def __init__(self, engine: Engine, watch: Callable[[str], Awaitable[None]] | None) -> None:
        self._engine = engine
        self._watch = watch

    async def at(self, session: str, grant: Grant, *, wait_for_start: bool = False) -> None:
        """See to a session that is about to be read.

        Args:
            session: The session.
            grant: What the reader may.
            wait_for_start: If there is neither a session nor a workflow of this name, make the session, so that the reader can
                wait for what comes into it. Only for who may: others are told that there is no session.

        Raises:
            TemporalUnavailableError: Temporal cannot be asked, and there is no session of this name to serve.
        """
        waits = wait_for_start and grant.may_wait(session)
        if self._watch is not None:
            try:
                await self._watch(session)
            except TemporalUnavailableError:
                if not waits:
                    raise
        if waits and await self._engine.state(session) is None:
            await self._engine.create_session(session)
