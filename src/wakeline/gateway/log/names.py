"""Names of sessions and of their lives."""

from __future__ import annotations

from collections.abc import Sequence
from secrets import choice
from typing import Final

from wakeline.errors import EpochChangedError

_EPOCH_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"


def name_ranges(within: Sequence[str]) -> list[tuple[str, str | None]]:
    """Return the ordered, disjoint ranges of names that names and prefixes (`*`) cover.

    Returns:
        For each range its first name, and the first name after it; None if there is none.
    """
    ranges: list[tuple[str, str | None]] = []
    for name in sorted(within, key=lambda name: name.removesuffix("*")):
        first = name.removesuffix("*")
        after = after_prefix(first) if first != name else f"{name}\0"
        if ranges and (ranges[-1][1] is None or first < ranges[-1][1]):
            last_after = ranges[-1][1]
            if last_after is not None and (after is None or after > last_after):
                ranges[-1] = (ranges[-1][0], after)
            continue
        ranges.append((first, after))
    return ranges


def in_ranges(name: str, ranges: Sequence[tuple[str, str | None]]) -> bool:
    """Return whether a name is in one of the ranges of `name_ranges`."""
    return any(first <= name and (end is None or name < end) for first, end in ranges)


def after_prefix(beginning: str) -> str | None:
    """Return the first text after all texts with this prefix; None if there is none."""
    kept = beginning.rstrip(chr(0x10FFFF))
    if not kept:
        return None
    last = ord(kept[-1]) + 1
    # 0xD800 to 0xDFFF are surrogates, which are no characters and cannot be encoded.
    return kept[:-1] + chr(0xE000 if last == 0xD800 else last)


def new_epoch() -> str:
    """Return a new epoch: 50 random bits, so that two lives of one session never share it."""
    return "".join(choice(_EPOCH_ALPHABET) for _ in range(10))


def check_epoch(session: str, now: str, asked: str | None) -> None:
    """Raise if the caller expects another epoch of the session.

    Args:
        session: The session's name.
        now: Its epoch.
        asked: The epoch that the caller expects; None for any.

    Raises:
        EpochChangedError: The session lives in another epoch.
    """
    if asked is not None and asked != now:
        raise EpochChangedError(f"expected {session!r} in epoch {asked}, it lives in epoch {now}")
