"""Temporal payloads in the form that they have in an event's JSON."""

from __future__ import annotations

from typing import Any

import msgspec
from temporalio.api.common.v1 import Payload

from wakeline.events import WirePayload
from wakeline.text import whole_json


def as_json(payload: Payload) -> dict[str, Any]:
    """Return a payload in its JSON form, whatever its encoding is."""
    form: dict[str, Any] = msgspec.to_builtins(WirePayload(dict(payload.metadata), payload.data))
    return form


def json_of(payload: Payload) -> bytes | None:
    """Return a payload's value as JSON; None if it is not JSON."""
    encoding = payload.metadata.get("encoding", b"")
    if encoding == b"binary/null":
        return b"null"
    if encoding != b"json/plain":
        return None
    data = whole_json(payload.data)
    try:
        data.decode()
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return data
