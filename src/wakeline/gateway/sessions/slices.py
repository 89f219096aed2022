"""The keys of the records of inputs and requests, and reads of many records in slices."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Final, TypeVar

import msgspec
import structlog

from wakeline.gateway.log import Record, Records

T = TypeVar("T")

SLICE: Final = 16
"""The records of one read: at most 4 MiB, and the gateway does other work between two reads."""

# No session's name has a control character. So the keys of `m` have no prefix in common with those of a session `m/1`.
_AFTER_SESSION: Final = "\x1f"
_log = structlog.get_logger(__name__)


def key_hash(key: str) -> str:
    """Return a name of fixed length for a key."""
    return sha256(key.encode()).hexdigest()[:32]


def of_session(session: str) -> str:
    """Return how the keys of a session's records begin, after the prefix of their kind."""
    return session + _AFTER_SESSION


def name_of(session: str, key: str) -> str:
    """Return the key of the record of an input or a request, after the prefix of its kind."""
    return of_session(session) + key_hash(key)


def parts_of(name: str) -> tuple[str, str]:
    """Return the session and the hash that a `name_of` has."""
    session, _, hashed = name.rpartition(_AFTER_SESSION)
    return session, hashed


async def each_record(records: Records, prefix: str, after: str = "") -> AsyncIterator[Record]:
    """Yield the records of a prefix in the order of keys, read in slices.

    A change between two slices may be missed.

    Args:
        records: Stores them.
        prefix: How their keys begin.
        after: The key after which the first one comes.
    """
    while some := await records.records_after(after, prefix=prefix, limit=SLICE):
        for record in some:
            yield record
        if len(some) < SLICE:
            return
        after = some[-1].key


async def each_decoded(
    records: Records, prefix: str, decoder: msgspec.json.Decoder[T], after: str = ""
) -> AsyncIterator[tuple[Record, T]]:
    """Yield the records of a prefix with their values, as `each_record` does.

    A record that cannot be decoded, such as one of a later version, is logged and passed over: it must not hinder the others.
    """
    async for record in each_record(records, prefix, after):
        try:
            value = decoder.decode(record.value)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            _log.warning("a record cannot be read; it is left as it is", key=record.key, error=str(error))
        else:
            yield record, value
