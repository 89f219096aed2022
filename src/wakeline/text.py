"""Text that can be passed on: valid UTF-8, and not too long.

Halves of surrogate pairs are joined, or replaced by U+FFFD.

JavaScript and some tokenizers cut text by UTF-16 units and so split an emoji in two. A Python `str` and a JSON escape can
hold such a half, but UTF-8 cannot encode it, and most readers refuse it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

T = TypeVar("T")

REPLACEMENT: Final = "\ufffd"

_HALF = re.compile("[\ud800-\udfff]")
_ESCAPED_BACKSLASH: Final = rb"\\"
_SENTINEL: Final = b"\0\0"  # of the same length; no JSON has a NUL
_LONE_HIGH = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})")
# The lookbehind is at the end: a pattern that begins with literal bytes is found ten times as fast.
_LONE_LOW = re.compile(rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}(?<!\\u[dD][89abAB][0-9a-fA-F]{2}.{6})", re.DOTALL)
_LOW = re.compile(rb"\\u[dD][c-fC-F]")
_SENTINELS = re.compile(rb"\0*")
_PIECE_BYTES: Final = 64 * 1024
_MOST_BYTES: Final = 8 * 1024


def whole(text: str) -> str:
    """Return a text with halves of surrogate pairs joined, and U+FFFD in place of lone halves."""
    if text.isascii() or _HALF.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def cut(text: str) -> str:
    """Return a text, cut with a note if it is long."""
    encoded = text.encode()
    if len(encoded) <= _MOST_BYTES:
        return text
    return f"{encoded[:_MOST_BYTES].decode(errors='ignore')}… (cut, {len(encoded)} bytes in all)"


def split_half(text: str) -> tuple[str, str]:
    """Return a text without a first half at its end, and that half for the next piece."""
    if text and "\ud800" <= text[-1] <= "\udbff":
        return text[:-1], text[-1]
    return text, ""


def whole_json(data: bytes) -> bytes:
    """Return JSON with U+FFFD for escapes of lone halves; the same object if it has none."""
    if not may_have_halves(data):
        return data
    mended = b"".join(mended_pieces(data))
    return data if mended == data else mended


def may_have_halves(data: bytes) -> bool:
    """Return whether JSON has escapes of halves, lone ones or pairs."""
    return (b"\\ud" in data or b"\\uD" in data) and b"\0" not in data


def check_mendable(error: ValueError, data: bytes) -> None:
    """Raise the error with which JSON was refused, unless escapes of halves may be its cause."""
    if not data.strip():
        raise type(error)("nothing, it is empty") from None
    if not may_have_halves(data):
        raise error


def mended_pieces(data: bytes) -> Iterator[bytes]:
    """Yield JSON in pieces, with U+FFFD in place of escapes of lone halves.

    Each piece takes some milliseconds.
    """
    # Escaped backslashes are set aside, so that a backslash always begins an escape: `\\ud83d` is no escape of a half.
    aside = data.replace(_ESCAPED_BACKSLASH, _SENTINEL)
    start = 0
    while start < len(aside):
        end = _cut(aside, start + _PIECE_BYTES)
        piece = _LONE_LOW.sub(rb"\\ufffd", aside[start:end])
        piece = _LONE_HIGH.sub(rb"\\ufffd", piece)
        yield piece.replace(_SENTINEL, _ESCAPED_BACKSLASH)
        start = end


def _cut(aside: bytes, near: int) -> int:
    """Return a place to cut near another one.

    It is neither within an escape or a sentinel nor between two halves.
    """
    if near >= len(aside):
        return len(aside)
    escape = aside.rfind(b"\\", near - 6, near)
    if escape < 0:
        sentinels = _SENTINELS.match(aside, near)
        return near if sentinels is None else sentinels.end()
    return escape + 6 if _LOW.match(aside, escape) else escape


def read_whole(decode: Callable[[bytes], T], data: bytes) -> T:
    """Decode JSON, with U+FFFD in place of escapes of lone halves.

    Args:
        decode: Raises a `ValueError` for JSON that it cannot read.
        data: The JSON.
    """
    try:
        return decode(data)
    except ValueError as error:
        check_mendable(error, data)
    return decode(whole_json(data))
