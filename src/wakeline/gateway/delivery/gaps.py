"""The event that tells that there were others."""

from __future__ import annotations

from wakeline.events import GAP, Event, compose


class RetentionGap(Event, frozen=True, gc=False):
    """A gap that was found while reading; a `$gap` of the log itself is an event as every other."""


def gap(asked: int, first: int, created: str) -> RetentionGap:
    """The event that tells that retention has taken `asked` up to `first`; it stands where the last of them stood.

    Args:
        asked: The first that is missing.
        first: The first that is kept.
        created: When the session was created: its `time`, which must be the same for everybody.
    """
    data = b'{"missed":%d,"first_available":%d,"source":"retention"}' % (first - asked, first)
    return RetentionGap(first - 1, GAP, compose(GAP, data, time=created).body)
