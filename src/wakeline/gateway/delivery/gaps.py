"""The `$gap` event for events that retention has removed."""

from __future__ import annotations

from wakeline.events import GAP, Event, compose


class RetentionGap(Event, frozen=True, gc=False):
    """A gap that was found while reading; a `$gap` in the log itself is an ordinary event."""


def gap(asked: int, first: int, created: str) -> RetentionGap:
    """Return the `$gap` for events from `asked` up to `first`, at the last one's offset.

    Args:
        asked: The offset of the first missing event.
        first: The offset of the first kept event.
        created: When the session was created: the event's `time`, which must be the same for every reader.
    """
    data = b'{"missed":%d,"first_available":%d,"source":"retention"}' % (first - asked, first)
    return RetentionGap(first - 1, GAP, compose(GAP, data, time=created).body)
