"""Whether a request that is asked again is asked by the run that asked it first."""

from __future__ import annotations

from typing import Protocol

from wakeline.gateway.sessions import RunNames


class Learn(Protocol):
    """Asks Temporal for the run that a Temporal run belongs to: see `Registrar.learn`."""

    async def __call__(self, session: str, run_id: str, beside: str) -> None:
        """Have the run's name known, if Temporal has the run."""


class Askers:
    """Compares the runs that ask.

    Args:
        names: The names of runs.

    Attributes:
        learn: Asks Temporal for a run that no record has; None without Temporal.
    """

    def __init__(self, names: RunNames) -> None:
        self._names = names
        self.learn: Learn | None = None

    async def are_one(self, session: str, first: str | None, second: str | None, *, learns: bool) -> bool:
        """Return whether two Temporal runs, or names of runs, belong to one run.

        Args:
            session: The session's name.
            first: The run that asked first, by its id if its name was unknown then.
            second: The run that asks now.
            learns: Whether to ask Temporal for a run that no record has yet: a run that has just continued as new.

        Raises:
            UnavailableError: The records or Temporal cannot be read now.
        """
        if first == second:
            return True
        if first is None or second is None:
            return False
        if await self._names.find(session, first) == await self._names.find(session, second):
            return True
        if self.learn is None or not learns:
            return False
        for run_id, beside in ((second, first), (first, second)):
            if not self._names.has(session, run_id):
                await self.learn(session, run_id, beside)
        return self._names.known(session, first) == self._names.known(session, second)
