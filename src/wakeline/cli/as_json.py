"""Results as JSON on stdout, with times as the gateway writes them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from wakeline.events import timestamp


def as_json(value: object) -> str:
    """Return a line of JSON; times have milliseconds, as those in the gateway's own answers."""
    return msgspec.json.encode(_with_milliseconds(msgspec.to_builtins(value, builtin_types=(datetime,)))).decode()


def _with_milliseconds(value: Any) -> Any:
    if isinstance(value, datetime):
        return timestamp(value)
    if isinstance(value, dict):
        return {name: _with_milliseconds(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_with_milliseconds(member) for member in value]
    return value
