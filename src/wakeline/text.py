"""Text that UTF-8 can hold: half a surrogate pair is joined with its other half, or stands as U+FFFD.

Where text is cut into pieces by UTF-16 units, as JavaScript and some tokenizers do, an emoji is cut in two. Python holds
such a half in a `str`, and JSON as an escape, but no UTF-8 can say it, and most readers refuse it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

REPLACEMENT: Final = "\ufffd"

_HALF = re.compile("[\ud800-\udfff]")
_ESCAPED_BACKSLASH: Final = rb"\\"
_SENTINEL: Final = b"\0\0"  # of the same length; no JSON has a NUL
_LONE_HIGH = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})")
# What must not stand before it is looked at from behind: a pattern that begins with its own bytes is found ten times as fast.
_LONE_LOW = re.compile(rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}(?<!\\u[dD][89abAB][0-9a-fA-F]{2}.{6})", re.DOTALL)
_MOST: Final = 50_000  # of each kind are replaced; the event loop waits meanwhile


def whole(text: str) -> str:
    """Return a text with halves of surrogate pairs joined, and U+FFFD in place of those that have no other half."""
    if text.isascii() or _HALF.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def split_half(text: str) -> tuple[str, str]:
    """Cut the first half of a pair off a text's end, as the other half may be the next piece's beginning."""
    if text and "\ud800" <= text[-1] <= "\udbff":
        return text[:-1], text[-1]
    return text, ""


def whole_json(data: bytes) -> bytes:
    """Return JSON with U+FFFD in place of escapes of half a pair; the same object where there is none."""
    if (b"\\ud" not in data and b"\\uD" not in data) or b"\0" in data:
        return data
    # Escaped backslashes are set aside, so that a backslash always begins an escape: `\\ud83d` is no escape of a half.
    aside = data.replace(_ESCAPED_BACKSLASH, _SENTINEL)
    aside, low = _LONE_LOW.subn(rb"\\ufffd", aside, _MOST)
    aside, high = _LONE_HIGH.subn(rb"\\ufffd", aside, _MOST)
    return aside.replace(_SENTINEL, _ESCAPED_BACKSLASH) if low or high else data


def read_whole(decode: Callable[[bytes], T], data: bytes) -> T:
    """Decode JSON, with U+FFFD in place of escapes of half a pair.

    Args:
        decode: Raises a `ValueError` for JSON that it cannot read.
        data: The JSON.
    """
    try:
        return decode(data)
    except ValueError:
        mended = whole_json(data)
        if mended is data:
            raise
        return decode(mended)
