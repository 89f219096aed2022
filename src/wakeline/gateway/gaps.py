"""The event that tells that there were others."""

from __future__ import annotations

from wakeline.events import GAP, Event, compose


def gap(asked: int, first: int, created: str) -> Event:
    """The event that tells that retention has taken `asked` up to `first`; it stands where the last of them stood.

    Args:
        asked: The first that is missing.
        first: The first that is kept.
        created: When the session was created: its `time`, which must be the same for everybody.
    """
    data = b'{"missed":%d,"first_available":%d,"source":"retention"}' % (first - asked, first)
    return Event(first - 1, GAP, compose(GAP, data, time=created).body)
