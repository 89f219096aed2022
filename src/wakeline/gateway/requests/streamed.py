"""Decodes the requests that a workflow publishes in its stream."""

from __future__ import annotations

import msgspec

from wakeline.errors import BodyInvalidError
from wakeline.gateway.requests.asked import Asked


class _Cancelled(msgspec.Struct, forbid_unknown_fields=True):
    cancel: str


class _Named(msgspec.Struct):
    id: str


_cancelled = msgspec.json.Decoder(_Cancelled)
_asked = msgspec.json.Decoder(Asked)
_named = msgspec.json.Decoder(_Named)


def cancelled(data: bytes) -> str | None:
    """Return the id of the request that an item cancels; None if it asks."""
    try:
        return _cancelled.decode(data).cancel
    except msgspec.DecodeError:
        return None


def asked(data: bytes) -> Asked:
    """Return the request that an item asks.

    Raises:
        BodyInvalidError: It has another form.
    """
    try:
        return _asked.decode(data)
    except msgspec.DecodeError as error:
        raise BodyInvalidError(f"expected a request for input, got: {error}") from None


def id_of(data: bytes) -> str | None:
    """Return the id of a request whatever else it has; None if it has none."""
    try:
        return _named.decode(data).id
    except msgspec.DecodeError:
        return None
