"""The fields of events that turns and parts are made from."""

from __future__ import annotations

from typing import Final

import msgspec


class Piece(msgspec.Struct, frozen=True, gc=False):
    """An event's place in a message that grows."""

    id: str
    op: str
    complete: bool = False


class Span(msgspec.Struct, frozen=True, gc=False):
    """The first of the events that an event of the compact form stands for."""

    first: int


class Body(msgspec.Struct, frozen=True, gc=False):
    """An event's fields."""

    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    run: str | None = None
    key: str | None = None
    message: Piece | None = None
    compact: Span | None = None


class Offsets(msgspec.Struct, frozen=True):
    """The data of `$attempt.superseded`."""

    offsets: list[tuple[int, int]]


decode_body: Final = msgspec.json.Decoder(Body).decode
decode_offsets: Final = msgspec.json.Decoder(Offsets).decode
