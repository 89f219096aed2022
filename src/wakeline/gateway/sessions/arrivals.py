"""Prepares a session for a reader: follows its workflow, or creates it for one that waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from wakeline.errors import SessionNotFoundError, TemporalUnavailableError, WakelineError
from wakeline.gateway.access import Grant
from wakeline.gateway.log import Engine, NewSession

_BEGINS: Final = "A session begins with its first event, or with the workflow of its name"


class Arrivals:
    """The step before every read of a session: its workflow is followed, or the session created.

    Args:
        engine: The log.
        watch: Follows the workflow of a session's name, if there is one; None for a gateway without Temporal.
        asks: Whether the gateway requires tokens.
    """

    def __init__(self, engine: Engine, watch: Callable[[str], Awaitable[None]] | None, *, asks: bool) -> None:
        self._asks = asks
        self._engine = engine
        self._watch = watch

    def explained(self, error: WakelineError, *, read: bool = True) -> WakelineError:
        """Return the error; a missing session's gets a hint that fits this gateway's settings.

        Args:
            error: The refusal of a request.
            read: Whether the request was to read the session, so that Temporal was asked for its workflow.
        """
        if isinstance(error, SessionNotFoundError) and "hint" not in vars(error):
            error.hint = self._hint(read=read)
        return error

    def _hint(self, *, read: bool) -> str:
        """Return one hint for missing and forbidden sessions, so that it reveals no names."""
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
        return f"{_BEGINS}. {none}. Reading events with wait_for_start=true waits until it is started."

    async def at(self, session: str, grant: Grant, *, wait_for_start: bool = False) -> None:
        """Prepare a session that is about to be read.

        Args:
            session: The session's name.
            grant: The reader's permissions.
            wait_for_start: If there is neither a session nor a workflow of this name, create the session, so that the reader
                can wait for its first event. Ignored if the grant does not allow to wait: the read then answers that there is
                no such session.

        Raises:
            TemporalUnavailableError: Temporal cannot be reached, and there is no session of this name.
        """
        waits = wait_for_start and grant.may_wait(session)
        if self._watch is not None:
            try:
                await self._watch(session)
            except TemporalUnavailableError:
                if not waits:
                    raise
        if waits and await self._engine.state(session) is None:
            await self._engine.create_session(NewSession(session))
