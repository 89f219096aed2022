"""Inputs in a workflow: the key of the one that a handler handles, and whether it was handled before.

Wakeline sends each input to one run of a workflow's chain. A handler that must be exact whoever sends, such as one that pays,
remembers the keys itself: another program may send a signal again after continue-as-new, where Temporal does not recognise it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from temporalio import workflow

HEADER = "wakeline-input"
"""The header of a signal or update that has the input's key."""

_MOST = 1_000
_key: ContextVar[str | None] = ContextVar("wakeline_input_key", default=None)


def input_key() -> str | None:
    """Return the key of the input that the running handler handles; None if it has none.

    An update's key is its id, whoever sent it. A signal's key is known on workers with `WakelinePlugin` only, because
    Temporal gives its header to interceptors alone.
    """
    key = _key.get()
    if key is not None:
        return key
    update = workflow.current_update_info()
    return None if update is None else update.id


class HandledInputs:
    """The inputs that a workflow has handled, by their keys.

    Create it in `@workflow.init`, and pass `carry()` on at continue-as-new:

        def __init__(self, order: str, handled: list[str] | None = None) -> None:
            self.inputs = HandledInputs(handled or [])

        @workflow.signal
        def pay(self, amount: int) -> None:
            if self.inputs.once():
                self.due -= amount

    Args:
        carried: The keys that the run before has passed on.
        most: The most keys that are remembered; the oldest are forgotten first.
    """

    def __init__(self, carried: Iterable[str] = (), *, most: int = _MOST) -> None:
        self._keys = dict.fromkeys(carried)
        self._most = most

    def once(self, key: str | None = None) -> bool:
        """Return whether an input is handled for the first time; it counts as handled from then on.

        Args:
            key: The input's key; by default that of the running handler. An input without a key is always new.
        """
        key = input_key() if key is None else key
        if key is None:
            return True
        if key in self._keys:
            return False
        self._keys[key] = None
        while len(self._keys) > self._most:
            del self._keys[next(iter(self._keys))]
        return True

    def carry(self) -> list[str]:
        """Return the keys for the next run, oldest first."""
        return list(self._keys)


@contextmanager
def handling(key: str | None) -> Iterator[None]:
    """Let `input_key` return this key inside the block."""
    token = _key.set(key)
    try:
        yield
    finally:
        _key.reset(token)
