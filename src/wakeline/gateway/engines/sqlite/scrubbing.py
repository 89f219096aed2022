"""Overwriting the copies of events that SQLite leaves behind in the free parts of its pages.

`secure_delete` overwrites a row where it is deleted. But when its neighbours are deleted, SQLite moves what remains of a page to
others, and leaves it standing in the gap of the page where it was. Such a copy of an event that is deleted later belongs to no
table any more, and is still in the file. So after a deletion the file is looked through for gaps that are not empty, and each
is filled from within: an event of the page is made as large as the page has room for, and then what it was.

What is read here follows SQLite's file format, of a file that others write meanwhile. Nothing is written by it: if it were
misread, some event would be written as it is already.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Final, NamedTuple

from wakeline.gateway.engines.sqlite.appends import Appends

PIECE_BYTES: Final = 1024 * 1024
_LEAF: Final = 0x0D
_HEADER: Final = 8
_NOTE: Final = 4  # what SQLite writes to where something was freed
_COLUMNS: Final = 6  # of `events`; no other table has as many
_BODY: Final = 4  # which of them is the body
_INTEGER_BYTES: Final = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)


class Gap(NamedTuple):
    """A page whose gap is not empty.

    Attributes:
        row: An event in it.
        room: How long that event's body can be for the page to hold it.
    """

    row: int
    room: int


def look_through(file: int, start: int) -> list[Gap] | None:
    """The gaps in a piece of the file, or None past its end.

    Args:
        file: A descriptor. Closing it while SQLite has the file open would give up SQLite's locks.
        start: Where the piece begins: a multiple of `PIECE_BYTES`.
    """
    page_size = int.from_bytes(os.pread(file, 2, 16))
    page_size = 65536 if page_size == 1 else page_size
    piece = os.pread(file, PIECE_BYTES, start)
    if not piece or page_size < 512:
        return None
    gaps: list[Gap] = []
    for at in range(0, len(piece) - page_size + 1, page_size):
        if piece[at] == _LEAF:
            try:
                gap = look_at(piece[at : at + page_size])
            except (
                IndexError
            ):  # it was written while it was read, or is no page of a table: an overflow may look like one
                continue
            if gap is not None:
                gaps.append(gap)
    return gaps


def look_at(page: bytes) -> Gap | None:
    """The gap of a leaf of `events`, if there is something in it."""
    cells, top = _two(page, 3), _two(page, 5) or 65536
    first = _HEADER + 2 * cells
    if not cells or not first <= top <= len(page) or page.count(0, first, top) == top - first:
        return None
    payload, at = _varint(page, start := _two(page, _HEADER))
    row, at = _varint(page, at)
    size = max(4, at - start + _local(payload, len(page)))
    types = _types(page, at)
    if len(types) != _COLUMNS or types[0] != 0:
        return None
    room = size + top - first + page[7] + _free_blocks(page)
    body, filled = _largest_body(types, row, room, len(page))
    # Filling does not reach the first bytes where the page holds one event only, and leaves a note of its own size.
    spared = first + room - filled + _NOTE
    if page.count(0, spared, top) == max(0, top - spared):
        return None
    return Gap(row, body)


def fill(connection: sqlite3.Connection, appends: Appends, gaps: list[Gap]) -> None:
    """Write over the gaps; what is in the tables stays as it is."""
    appends.flush()
    for gap in gaps:
        found = connection.execute("SELECT body FROM events WHERE id = ?", (gap.row,)).fetchone()
        if found is not None:
            connection.execute("UPDATE events SET body = zeroblob(?) WHERE id = ?", gap[::-1])
            connection.execute("UPDATE events SET body = ? WHERE id = ?", (found[0], gap.row))


def _largest_body(types: list[int], row: int, room: int, page_size: int) -> tuple[int, int]:
    """The longest body with which the event's cell takes at most `room` bytes, and how many it takes then."""
    others = [kind for column, kind in enumerate(types) if column != _BODY]
    fixed = 1 + sum(map(_varint_bytes, others)) + sum(map(_value_bytes, others))
    for body in range(min(room, page_size), 0, -1):
        payload = fixed + _varint_bytes(12 + 2 * body) + body
        size = _varint_bytes(payload) + _varint_bytes(row) + payload
        if payload <= page_size - 35 and size <= room:
            return body, size
    return 0, 0


def _local(payload: int, page_size: int) -> int:
    """How many bytes of a payload are in the cell itself, with the number of the page where it goes on."""
    if payload <= page_size - 35:
        return payload
    least = (page_size - 12) * 32 // 255 - 23
    local = least + (payload - least) % (page_size - 4)
    return (local if local <= page_size - 35 else least) + 4


def _types(page: bytes, at: int) -> list[int]:
    """The types of a record's columns."""
    size, next_type = _varint(page, at)
    types: list[int] = []
    while next_type < at + size:
        kind, next_type = _varint(page, next_type)
        types.append(kind)
    return types


def _free_blocks(page: bytes) -> int:
    total, at = 0, _two(page, 1)
    while at:
        total += _two(page, at + 2)
        at, before = _two(page, at), at
        if at and at <= before:
            raise IndexError("expected free blocks in order")
    return total


def _value_bytes(kind: int) -> int:
    return _INTEGER_BYTES[kind] if kind < 12 else (kind - 12) // 2


def _varint(page: bytes, at: int) -> tuple[int, int]:
    value = 0
    for end in range(at + 1, at + 9):
        byte = page[end - 1]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, end
    return value << 8 | page[at + 8], at + 9


def _varint_bytes(value: int) -> int:
    return max(1, (value.bit_length() + 6) // 7)


def _two(page: bytes, at: int) -> int:
    return page[at] << 8 | page[at + 1]
