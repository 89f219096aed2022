"""Makes text valid UTF-8: halves of surrogate pairs are joined, or replaced by U+FFFD.

JavaScript and some tokenizers cut text by UTF-16 units and so split an emoji in two. Python can hold such a half in a `str`,
and JSON as an escape, but UTF-8 cannot encode it, and most readers refuse it.
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
# The lookbehind is at the end: a pattern that begins with literal bytes is found ten times as fast.
_LONE_LOW = re.compile(rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}(?<!\\u[dD][89abAB][0-9a-fA-F]{2}.{6})", re.DOTALL)
_MOST: Final = 50_000  # replacements of each kind, because the event loop waits meanwhile


def whole(text: str) -> str:
    """Return a text with halves of surrogate pairs joined, and U+FFFD in place of lone halves."""
    if text.isascii() or _HALF.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def split_half(text: str) -> tuple[str, str]:
    """Return a text without a first half at its end, and that half for the next piece."""
    if text and "\ud800" <= text[-1] <= "\udbff":
        return text[:-1], text[-1]
    return text, ""


def whole_json(data: bytes) -> bytes:
    """Return JSON with U+FFFD in place of escapes of lone halves; the same object without any."""
    if (b"\\ud" not in data and b"\\uD" not in data) or b"\0" in data:
        return data
    # Escaped backslashes are set aside, so that a backslash always begins an escape: `\\ud83d` is no escape of a half.
    aside = data.replace(_ESCAPED_BACKSLASH, _SENTINEL)
    aside, low = _LONE_LOW.subn(rb"\\ufffd", aside, _MOST)
    aside, high = _LONE_HIGH.subn(rb"\\ufffd", aside, _MOST)
    return aside.replace(_SENTINEL, _ESCAPED_BACKSLASH) if low or high else data


def read_whole(decode: Callable[[bytes], T], data: bytes) -> T:
    """Decode JSON, with U+FFFD in place of escapes of lone halves.

    Args:
        decode: Raises a `ValueError` for JSON that it cannot read.
        data: The JSON.
    """
    try:
        return decode(data)
    except ValueError as error:
        if not data.strip():
            raise type(error)("nothing, it is empty") from None
        mended = whole_json(data)
        if mended is data:
            raise
        return decode(mended)
