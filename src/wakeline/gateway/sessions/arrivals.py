"""Prepares a session for a reader: follows its workflow, or creates it for one that waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from wakeline.errors import RequestNotFoundError, SessionNotFoundError, TemporalUnavailableError, WakelineError
from wakeline.gateway.access import Grant
from wakeline.gateway.log import Engine, NewSession

_BEGINS: Final = "A session begins with its first event, or with the workflow of its name"
_FOLLOWED: Final = (
    "once the gateway follows that: it does if its events or requests are read, if a publisher names it, or if a [[follow]] rule "
    "finds it. "
    "A question of a run that is not followed yet has not been read"
)
_WAITS: Final = "for a token that names the session in its claim wakeline.sessions, without *, or that may manage it"


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

    def explained(self, error: WakelineError, *, read: bool = True, waited: bool = False) -> WakelineError:
        """Return the error, whose hint fits this gateway if a session or request is missing.

        Args:
            error: The refusal of a request.
            read: Whether the request was to read the session, so that Temporal was asked for its workflow.
            waited: Whether the request was to wait for the start of the session.
        """
        if "hint" in vars(error):
            return error
        if isinstance(error, SessionNotFoundError):
            error.hint = self._hint(read=read, waited=waited)
        elif isinstance(error, RequestNotFoundError) and self._watch is not None:
            error.hint += f" A run's question is there {_FOLLOWED}."
        return error

    def _hint(self, *, read: bool, waited: bool) -> str:
        """Return one hint for missing and forbidden sessions, so that it reveals no names."""
        if waited and self._asks:
            return (
                f"wait_for_start=true waits only {_WAITS}. "
                "For any other token a session that has not started is missing, and one that it does not reach is, too."
            )
        token = " A token that does not reach it (its claim wakeline.sessions) is answered alike." if self._asks else ""
        if self._watch is None:
            return (
                "This gateway runs without Temporal and sees no workflow: a session begins with its first event. "
                f"Start the gateway with --temporal HOST:PORT if it is to follow workflows.{token}"
            )
        if not read:
            return f"{_BEGINS} {_FOLLOWED}.{token}"
        none = "Temporal has no workflow of this id either, or its events go to another session"
        if self._asks:
            none = (
                f"Either the token does not reach it (its claim wakeline.sessions), which is answered alike, or {none}"
            )
        waits = f", {_WAITS}" if self._asks else ""
        return f"{_BEGINS}. {none}. Reading events with wait_for_start=true waits until it is started{waits}."

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
