"""Inputs in a workflow: the key of the one being handled, and whether it was handled before.

Wakeline sends each input to one run of a workflow's chain. A handler that must be exact whoever sends, such as one that pays,
remembers the keys itself: another program may send a signal again after continue-as-new, where Temporal does not recognise it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from temporalio import workflow

HEADER = "wakeline-input"
"""The header of a signal or update that has the input's key."""

LIFE_HEADER = "wakeline-input-life"
"""The header that tells an input from an earlier one with the same key, whose outcome is forgotten."""

_MOST = 1_000
_TEMPORAL_ID = re.compile("([!-~]{1,128}) ~([0-9a-f]{1,16})")
_input: ContextVar[tuple[str, str] | None] = ContextVar("wakeline_input", default=None)


def temporal_id(key: str, life: str) -> str:
    """Return the id of an input in Temporal: its request id or update id.

    Temporal recognises an id for as long as the run lives, which may be longer than a key is remembered.
    """
    return f"{key} ~{life}" if life else key


def input_key() -> str | None:
    """Return the key of the input that the running handler handles; None if it has none.

    An update that Wakeline did not send has its id as its key. A signal's key is known on workers with `WakelinePlugin`
    only, because Temporal gives its header to interceptors alone.
    """
    handled = _handled()
    return None if handled is None else handled[0]


def _handled() -> tuple[str, str] | None:
    """Return the key and life of the input that is being handled; None if it has none."""
    handled = _input.get()
    if handled is not None:
        return handled
    update = workflow.current_update_info()
    if update is None:
        return None
    sent = _TEMPORAL_ID.fullmatch(update.id)
    return (update.id, "") if sent is None else (sent[1], sent[2])


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
            key: The input's key. Default: that of the running handler. With this one, given or not, it also matters when
                Wakeline accepted the input, so that a key that a client uses again after its outcome was forgotten is new.
                An input without a key is always new.
        """
        handled, life = _handled(), ""
        if handled is not None and key in (None, handled[0]):
            key, life = handled
        if key is None:
            return True
        if self._has(key, life):
            return False
        self._keys[temporal_id(key, life)] = None
        while len(self._keys) > self._most:
            del self._keys[next(iter(self._keys))]
        return True

    def _has(self, key: str, life: str) -> bool:
        """Return whether an input was handled; a key without a life, of another program, means each."""
        if key in self._keys:
            return True
        if life:
            return temporal_id(key, life) in self._keys
        return any(known.startswith(f"{key} ~") for known in self._keys)

    def carry(self) -> list[str]:
        """Return the keys for the next run, oldest first."""
        return list(self._keys)


@contextmanager
def handling(key: str | None, life: str = "") -> Iterator[None]:
    """Let `input_key` return this key inside the block."""
    token = _input.set(None if key is None else (key, life))
    try:
        yield
    finally:
        _input.reset(token)
