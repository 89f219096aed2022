"""Parameters of requests: each is read strictly, and refused with what was expected."""

from __future__ import annotations

import math
from typing import Final

from aiohttp import web

from wakeline.errors import RequestInvalidError

_MAX_WAIT: Final = 60.0


def integer(request: web.Request, name: str, default: int, least: int, most: int) -> int:
    """An integer in a range."""
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise RequestInvalidError(f"expected {name} to be an integer from {least} to {most}, got {text[:40]!r}")
    return int(text)


def seconds(request: web.Request, name: str) -> float:
    """A time to wait, 0 by default."""
    text = request.query.get(name, "0")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= _MAX_WAIT:
        raise RequestInvalidError(f"expected {name} to be 0 to {_MAX_WAIT:.0f} seconds, got {text[:40]!r}")
    return value


def flag(request: web.Request, name: str) -> bool:
    """`true` or `false`, the default."""
    text = request.query.get(name, "false")
    if text not in ("true", "false"):
        raise RequestInvalidError(f"expected {name}=true or {name}=false, got {text[:40]!r}")
    return text == "true"


def until_settled(request: web.Request) -> bool:
    """Whether `until=settled`."""
    until = request.query.get("until", "never")
    if until not in ("settled", "never"):
        raise RequestInvalidError(f"expected until=settled or until=never, got {until[:40]!r}")
    return until == "settled"


def compact_view(request: web.Request) -> bool:
    """Whether `view=compact`."""
    view = request.query.get("view", "raw")
    if view not in ("raw", "compact"):
        raise RequestInvalidError(f"expected view=raw or view=compact, got {view[:40]!r}")
    return view == "compact"


def device_id(request: web.Request) -> str | None:
    """The device that reads, if it says so."""
    text = request.query.get("device")
    return None if text is None else check_device(text)


def check_device(text: str) -> str:
    """Return `text` if a device may have this id."""
    if not (1 <= len(text) <= 128 and text.isascii() and text.isprintable() and " " not in text):
        raise RequestInvalidError(f"expected a device id of 1 to 128 visible ASCII characters, got {text[:40]!r}")
    return text
