"""A reader comes to a session: its workflow, if it has one, is followed from now on; or it is waited for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from wakeline.errors import SessionNotFoundError, TemporalUnavailableError, WakelineError
from wakeline.gateway.access import Grant
from wakeline.gateway.log import Engine

_BEGINS: Final = "A session begins with its first event, or with the workflow of its name"


class Arrivals:
    """Where every reader passes before a session is opened to it.

    Args:
        engine: The log.
        watch: Sees that the workflow of a session's name is followed; None where there is no Temporal.
        asks: Callers are asked for a token.
    """

    def __init__(self, engine: Engine, watch: Callable[[str], Awaitable[None]] | None, *, asks: bool) -> None:
        self._asks = asks
        self._engine = engine
        self._watch = watch

    def explained(self, error: WakelineError, *, read: bool = True) -> WakelineError:
        """Return the error; for a missing session, with a hint that is true of this gateway.

        Args:
            error: The refusal of a request.
            read: The request was to read the session, so that Temporal was asked for its workflow.
        """
        if isinstance(error, SessionNotFoundError) and "hint" not in vars(error):
            error.hint = self._hint(read=read)
        return error

    def _hint(self, *, read: bool) -> str:
        """Return one hint for missing and unreachable sessions, so that it reveals no names."""
        token = " A token that does not reach it (its claim wakeline.sessions) is answered alike." if self._asks else ""
        if self._watch is None:
            return (
                "This gateway runs without Temporal and sees no workflow: a session begins with its first event. "
                f"Start the gateway with --temporal HOST:PORT if it is to follow workflows.{token}"
            )
        if not read:
            return f"{_BEGINS} once that is read.{token}"
        none = "Temporal has no workflow of this id either, or its events go to another session"
        if self._asks:
            none = (
                f"Either the token does not reach it (its claim wakeline.sessions), which is answered alike, or {none}"
            )
        return f"{_BEGINS}. {none}. wait_for_start=true waits for one that is not started yet."

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
