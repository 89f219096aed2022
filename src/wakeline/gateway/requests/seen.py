"""Checks that the device which answers has seen what was published."""

from __future__ import annotations

from wakeline.errors import StaleError
from wakeline.gateway.log import Log
from wakeline.gateway.sessions import InputRequest


class _Published:
    """The topics that publishers and workflows use: all but Wakeline's own."""

    def __contains__(self, topic: object) -> bool:
        return isinstance(topic, str) and not topic.startswith("$")


async def check_seen(log: Log, request: InputRequest, expect: int | None) -> None:
    """Raise if something was published after the last event that a device has seen.

    Args:
        log: The log.
        request: The request that it answers.
        expect: The offset of that event; None if the device does not say.

    Raises:
        StaleError: Something was published since.
    """
    if expect is None:
        return
    offset = expect + 1
    while True:
        state = await log.state(request.session)
        if state is None or offset >= state.next_offset:
            return
        page = await log.read(
            request.session, offset, before=state.next_offset, topics=_Published(), epoch=request.epoch
        )
        if page.events:
            found = page.events[0].offset
            raise StaleError(
                f"expected a device that has seen event {found} of the session, got one that has seen {expect}",
                offset=found,
            )
        offset = page.next_offset
