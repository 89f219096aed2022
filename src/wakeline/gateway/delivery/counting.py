"""Limits on the elements of a JSON array, checked before it is decoded.

A small body may have millions of elements, and decoding would allocate an object for each.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from wakeline.errors import BatchTooLargeError


class _Batch(msgspec.Struct):
    events: msgspec.Raw = msgspec.Raw(b"")


_batch = msgspec.json.Decoder(_Batch)


def check_batch(body: bytes | str, most: int) -> None:
    """Raise if a JSON object has more than `most` `events`.

    The caller's decoder reports every other defect of the body.

    Raises:
        BatchTooLargeError: There are more.
    """
    if (body.count(",") if isinstance(body, str) else body.count(b",")) < most:
        return
    try:
        events = _batch.decode(body).events
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    check_array(bytes(events), most)


def check_array(array: bytes, most: int) -> None:
    """Raise if a JSON array has more than `most` elements.

    The caller's decoder reports every other defect of the array.

    Raises:
        BatchTooLargeError: It has more.
    """
    if array.count(b",") < most or array.lstrip(b" \t\r\n")[:1] != b"[":
        return
    try:
        _at_most(most).decode(array)
    except msgspec.ValidationError:
        raise too_many(most) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return


def too_many(most: int) -> BatchTooLargeError:
    """Return the error for a batch with too many events."""
    return BatchTooLargeError(f"expected at most {most} events in one batch, got more")


@lru_cache(maxsize=4)
def _at_most(count: int) -> msgspec.json.Decoder[Any]:
    # A struct with a field for each element: msgspec stops at the first surplus element, 300 times sooner than it would
    # have decoded a list of millions.
    places = [(f"at{number}", msgspec.Raw, msgspec.Raw(b"")) for number in range(count)]
    return msgspec.json.Decoder(
        msgspec.defstruct("AtMost", places, array_like=True, forbid_unknown_fields=True, gc=False)
    )
