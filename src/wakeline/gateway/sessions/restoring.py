"""Gives every session a new epoch after a restore, so that older cursors are refused.

A device's cursor may lie beyond the restored events, and the next appends reuse the offsets of lost events. So every session
continues in a new epoch, and its readers start again. Records that the gateway keeps by epoch (devices' positions, compact
forms) are as old as the restored log and stay valid, so they move to the new epoch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import structlog

from wakeline.gateway.log import Engine, Restorable

_OF_LIFE: Final = re.compile(r"compact/([a-z2-7]{10})/")
_IN_LIFE: Final = re.compile(rb'\{"epoch":"([a-z2-7]{10})"')
_log = structlog.get_logger(__name__)


async def renew_if_restored(engine: Engine) -> None:
    """Give every session a new epoch if the store was restored; call before anything is served.

    Raises:
        UnavailableError: The store cannot be written now.
    """
    if isinstance(engine, Restorable) and engine.restored:
        await engine.renew(carried)
        _log.warning("the data were restored from a backup or copied: every session continues in a new epoch")


def carried(key: str, value: bytes, epochs: Mapping[str, str]) -> tuple[str, bytes]:
    """Return a record's key and value with its session's new epoch in place of the old one."""
    if (found := _OF_LIFE.match(key)) is not None:
        new = epochs.get(found[1], found[1])
        return f"{key[: found.start(1)]}{new}{key[found.end(1) :]}", value
    if key.startswith("positions/") and (begins := _IN_LIFE.match(value)) is not None:
        new = epochs.get(begins[1].decode(), begins[1].decode())
        return key, value[: begins.start(1)] + new.encode() + value[begins.end(1) :]
    return key, value
