"""A walk over all names of a store, in steps, which may be requested again at any time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable


class Walk:
    """The place of a walk; it begins at the first name.

    Args:
        step: Checks the next names after one, and returns the last of them; None at the end.
    """

    def __init__(self, step: Callable[[str], Awaitable[str | None]]) -> None:
        self._step = step
        self._after: str | None = ""
        self._times = 0  # how often it has begun

    @property
    def is_over(self) -> bool:
        """Whether all names were checked since the walk was requested last."""
        return self._after is None

    def restart(self) -> None:
        """Check all names again, those of a step under way, too."""
        self._after = ""
        self._times += 1

    async def go_on(self) -> None:
        """Take the next step, unless the walk is over."""
        if self._after is None:
            return
        times, reached = self._times, await self._step(self._after)
        if times == self._times:  # otherwise it restarts: the step has checked what was so before
            self._after = reached
