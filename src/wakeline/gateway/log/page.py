"""Pages of events that an engine yields in the order of offsets, or backwards.

No more events are taken than the page has room for. A `check` is called with the expected offset and the one that came, and
raises if they differ.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import TypeAlias

from wakeline.events import Event
from wakeline.gateway.log.values import PAGE_BYTES, Page

Check: TypeAlias = Callable[[int, int], None] | None


def page_from(events: Iterable[Event], began: int, topics: Container[str] | None, check: Check = None) -> Page:
    """Return a page of events from `began` on; see `Log.read`."""
    found: list[Event] = []
    offset, size = began, 0
    for event in events:
        if check is not None:
            check(offset, event.offset)
        offset = event.offset + 1
        if topics is None or event.topic in topics:
            found.append(event)
        size += len(event.body)
        if size >= PAGE_BYTES:
            break
    return Page(found, offset, began)


def page_back(
    events: Iterable[Event], before: int, limit: int, topics: Container[str] | None, check: Check = None
) -> Page:
    """Return a page of events below `before`, which come backwards; see `Log.read_back`."""
    found: list[Event] = []
    began, size = before, 0
    for event in events:
        if check is not None and began < before:
            check(began - 1, event.offset)
        began = event.offset
        if topics is None or event.topic in topics:
            found.append(event)
        size += len(event.body)
        if len(found) >= limit or size >= PAGE_BYTES:
            break
    return Page(found[::-1], before, began)
