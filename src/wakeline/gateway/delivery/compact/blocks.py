"""Encodes folds as the bytes that are stored."""

from __future__ import annotations

from typing import Final

import msgspec

from wakeline.compact.entries import Keyed, Message, Part, Segment, State, Writer
from wakeline.compact.fold import Fold
from wakeline.compact.plain import Plain, PlainEvents, PlainRanges
from wakeline.events import Event

VERSION: Final = 1
"""The version of the stored form. Blocks of another version are ignored and made again from the log."""


class _Segment(msgspec.Struct, frozen=True, array_like=True, gc=False):
    first: int
    last: int
    events: int
    time: str
    run: str | None
    activity: str | None
    attempt: int | None
    complete: bool
    ops: list[tuple[str, bytes]]


class _State(msgspec.Struct, frozen=True, array_like=True, gc=False):
    first: int
    last: int
    events: int
    run: str | None
    activity: str | None
    attempt: int | None
    body: bytes


class _Block(msgspec.Struct, frozen=True, array_like=True):
    first: int
    next: int
    superseded: list[tuple[int, int]]
    messages: list[tuple[str, str, list[_Segment]]]
    keyed: list[tuple[str, str, list[_State]]]
    ranges: list[tuple[int, int]]
    events: list[tuple[int, str, bytes]] | None


_decode = msgspec.msgpack.Decoder(_Block).decode


def plain(*, bodies: bool) -> Plain:
    """Return the plain part of a new fold: whole events if `bodies`, otherwise their offsets."""
    return PlainEvents() if bodies else PlainRanges()


def encode(fold: Fold) -> bytes:
    """Return the bytes of the fold of a stretch of a log."""
    return msgspec.msgpack.encode(
        _Block(
            first=fold.first_offset,
            next=fold.next_offset,
            superseded=fold.superseded,
            messages=[(*name, [_segment(s) for s in message.segments]) for name, message in fold.messages.items()],
            keyed=[
                (*name, [_State(s.first, s.last, s.events, *writer, s.body) for writer, s in keyed.states.items()])
                for name, keyed in fold.keyed.items()
            ],
            ranges=fold.plain.ranges if isinstance(fold.plain, PlainRanges) else [],
            events=[(event.offset, event.topic, event.body) for event in fold.plain.events()]
            if isinstance(fold.plain, PlainEvents)
            else None,
        )
    )


def decode(data: bytes) -> Fold:
    """Return the fold in bytes from `encode`."""
    block = _decode(data)
    fold = Fold(
        block.first,
        PlainRanges(block.ranges) if block.events is None else PlainEvents(Event(*event) for event in block.events),
    )
    fold.next_offset, fold.superseded, fold.size = block.next, block.superseded, len(data)
    for topic, name, segments in block.messages:
        fold.messages[topic, name] = Message([_read(segment) for segment in segments])
    for topic, key, states in block.keyed:
        keyed = fold.keyed[topic, key] = Keyed()
        for s in states:
            keyed.states[Writer(s.run, s.activity, s.attempt)] = State(s.first, s.last, s.events, s.body)
    return fold


def _segment(segment: Segment) -> _Segment:
    place = (segment.first, segment.last, segment.events, segment.time)
    ops = [(op, bytes(data)) for op, data in segment.change.wire()]
    return _Segment(*place, *segment.writer, complete=segment.complete, ops=ops)


def _read(segment: _Segment) -> Segment:
    fields = msgspec.structs.asdict(segment)
    return Segment.of(Part(**{**fields, "ops": [(op, msgspec.Raw(data)) for op, data in segment.ops]}))
