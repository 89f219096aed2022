"""What follows when the store was restored from a backup: no cursor from before may be served.

The cursors of devices may lie beyond what was restored, and what is appended next will have the offsets of events that are
gone. So every session goes on in another epoch, and its readers begin again. What the gateway keeps by epoch is as old as the
log beside it, and goes on to be true of it: devices' positions, compact forms, the order of writers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import structlog

from wakeline.gateway.log import Engine

_OF_LIFE: Final = re.compile(r"compact/([a-z2-7]{10})/")
_IN_LIFE: Final = re.compile(rb'\{"epoch":"([a-z2-7]{10})"')
_log = structlog.get_logger(__name__)


async def renew_if_restored(engine: Engine) -> None:
    """Give every session another epoch if what is here was restored; before anything is served.

    Raises:
        UnavailableError: It cannot be done now.
    """
    if engine.restored:
        await engine.renew(carried)
        _log.warning("the data were restored from a backup or copied: every session goes on in a new epoch")


def carried(key: str, value: bytes, epochs: Mapping[str, str]) -> tuple[str, bytes]:
    """A record's key and value in its session's new epoch, whether the one or the other names it."""
    if (found := _OF_LIFE.match(key)) is not None:
        new = epochs.get(found[1], found[1])
        return f"{key[: found.start(1)]}{new}{key[found.end(1) :]}", value
    if key.startswith(("positions/", "stream-seq/")) and (begins := _IN_LIFE.match(value)) is not None:
        new = epochs.get(begins[1].decode(), begins[1].decode())
        return key, value[: begins.start(1)] + new.encode() + value[begins.end(1) :]
    return key, value
