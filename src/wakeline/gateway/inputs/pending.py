"""Limits the inputs without an outcome, which a gateway keeps while Temporal is away."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import msgspec

from wakeline.errors import LimitReachedError
from wakeline.gateway.inputs.asked import ANSWER_KEY, Asked
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.rules import InputRules
from wakeline.gateway.sessions import Intent

_RETRY_SECONDS: Final = 5
_HINT: Final = "Wait for the outcomes of earlier inputs; they wait while Temporal, a worker or a handler does."


@dataclass(slots=True)
class _Kept:
    """The inputs of one session or user.

    Attributes:
        number: How many there are.
        size: The bytes of their arguments, and of what is shown of them.
    """

    number: int = 0
    size: int = 0


class Pending:
    """Counts the inputs that this gateway has accepted or carries on, by session and by user.

    Args:
        rules: The limits.
        metrics: Show the totals.
    """

    def __init__(self, rules: InputRules, metrics: Metrics) -> None:
        self._rules = rules
        self._metrics = metrics
        # By ("session", name) and ("user", name); only those that have inputs.
        self._kept: defaultdict[tuple[str, str], _Kept] = defaultdict(_Kept)

    @contextmanager
    def room(self, session: str, asked: Asked, by: str) -> Iterator[None]:
        """Hold the room for one more input while it is accepted, inside the block.

        The outcomes of requests for input are counted and not refused: a request counts as open until its outcome has
        been delivered, and open requests are limited.

        Raises:
            LimitReachedError: The session or the user has as many as are allowed, or too large ones.
        """
        size, rules = asked.size, self._rules
        if not asked.id.startswith(ANSWER_KEY):
            self._check(("session", session), size, rules.session_pending, rules.session_pending_bytes)
            if by:  # without tokens, all callers are one user
                self._check(("user", by), size, rules.user_pending, rules.user_pending_bytes)
        self._add(session, by, 1, size)
        try:
            yield
        finally:
            self._add(session, by, -1, -size)

    def begin(self, intent: Intent) -> None:
        """Count an input that is carried to its outcome from now on."""
        self._add(intent.session, intent.by, 1, _size(intent))

    def end(self, intent: Intent) -> None:
        """Stop counting an input: it has an outcome, or the gateway stops."""
        self._add(intent.session, intent.by, -1, -_size(intent))

    def _check(self, place: tuple[str, str], size: int, most: int, most_bytes: int) -> None:
        kept = self._kept.get(place) or _Kept()
        whose = f"{place[0]} {place[1][:64]!r}"
        if kept.number >= most:
            raise LimitReachedError(
                f"expected at most {most} inputs of {whose} without an outcome, got one more",
                retry_after=_RETRY_SECONDS,
                hint=_HINT,
            )
        if kept.size + size > most_bytes:
            raise LimitReachedError(
                f"expected at most {most_bytes} bytes of arguments of {whose} without an outcome, "
                f"got {kept.size + size}",
                retry_after=_RETRY_SECONDS,
                hint=_HINT,
            )

    def _add(self, session: str, by: str, number: int, size: int) -> None:
        for place in (("session", session), ("user", by)):
            kept = self._kept[place]
            kept.number += number
            kept.size += size
            if not kept.number:
                del self._kept[place]
        self._metrics.inputs_pending.inc(number)
        self._metrics.inputs_pending_bytes.inc(size)


def _size(intent: Intent) -> int:
    """Return the bytes of an input's arguments, of its workflow's, and of what is shown."""
    shown = b"" if intent.shown is msgspec.UNSET else bytes(intent.shown)
    return len(intent.args) + len(shown) + (0 if intent.starting is None else len(intent.starting.args))
