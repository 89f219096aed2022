"""Decides whether a device had seen what came before its input or its answer."""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from wakeline.errors import StaleError
from wakeline.events import INPUT_ACCEPTED, RUN_CLOSED, RUN_STARTED
from wakeline.gateway.log import Engine

_OWN: Final = (INPUT_ACCEPTED, RUN_STARTED, RUN_CLOSED)


class _Counting(Container[str]):
    """The topics that count: published ones, other inputs, and runs that began or ended."""

    def __contains__(self, topic: object) -> bool:
        return isinstance(topic, str) and (not topic.startswith("$") or topic in _OWN)


async def unseen(engine: Engine, session: str, epoch: str, expect: int, before: int | None = None) -> int | None:
    """Return the offset of the first event that counts and that a device has not seen.

    Args:
        engine: The log.
        session: The session's name.
        epoch: Its life.
        expect: The offset of the last event that the device has seen.
        before: The offset of the input's own event; None for the session's end.

    Returns:
        The offset; None if there is no such event. Events that retention has removed count only at the session's end: an
        input that is carried on later must be decided as it was at first.
    """
    offset = expect + 1
    state = await engine.state(session)
    end = before if before is not None else state.next_offset if state is not None else 0
    while offset < end:
        page = await engine.read(session, offset, before=end, topics=_Counting(), epoch=epoch)
        if page.began > offset and before is None:
            return offset
        if page.events:
            return page.events[0].offset
        offset = max(page.next_offset, offset + 1)
    return None


async def check_seen(engine: Engine, session: str, epoch: str, expect: int | None) -> None:
    """Raise if a device has not seen an event that counts.

    Args:
        engine: The log.
        session: The session's name.
        epoch: Its life.
        expect: The offset of the last event that the device has seen; None if that does not matter.

    Raises:
        StaleError: It has not.
    """
    if expect is not None and (offset := await unseen(engine, session, epoch, expect)) is not None:
        raise stale(offset, expect)


def stale(offset: int, expect: int | None = None) -> StaleError:
    """Return the refusal of a device that had not seen an event."""
    came = "" if expect is None else f", got one that has seen {expect}"
    return StaleError(f"expected a device that has seen event {offset} of the session{came}", offset=offset)
