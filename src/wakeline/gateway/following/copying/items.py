"""Items of a run's stream as they were read, or why there are none."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from wakeline.gateway.following.life.answers import Answer


class Item(msgspec.Struct, frozen=True):
    """One item of a stream, at its upstream offset."""

    offset: int
    topic: str
    payload: bytes


class Stretch(msgspec.Struct, frozen=True):
    """Items of a stream.

    Attributes:
        items: In order. The first may be past the offset that was asked for, if the workflow has truncated its log.
        next_offset: The offset to continue at.
        more: Whether there are more at once.
    """

    items: list[Item]
    next_offset: int
    more: bool


class Missing(NamedTuple):
    """An answer without items.

    Attributes:
        answer: Why there are none.
        reason: The error, for the log.
    """

    answer: Answer
    reason: str = ""
