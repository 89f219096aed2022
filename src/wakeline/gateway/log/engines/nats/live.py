"""Reports the messages of sessions to listeners: each once, in their order.

A gateway learns of its own message by the acknowledgement, and by following the stream. It reports it at the first of the two,
unless messages of other gateways before it have not arrived yet.
"""

from __future__ import annotations

from collections.abc import Callable

from wakeline.events import Event
from wakeline.gateway.log.engines.nats.index import Index
from wakeline.gateway.log.engines.nats.messages import Message, decode
from wakeline.gateway.log.feed import Feed
from wakeline.gateway.log.values import Change


class Live:
    """Reports the messages of one stream.

    Args:
        index: The catalog.
        feed: Has the listeners.
        foreign: Called with each message that this gateway has not reported by its acknowledgement.
        gateway: The beginning of the ids of this gateway's messages.
    """

    def __init__(self, index: Index, feed: Feed, foreign: Callable[[int, Message], None], gateway: str) -> None:
        self._index = index
        self._feed = feed
        self._foreign = foreign
        self._ahead: set[int] = set()  # reported by their acknowledgement, and still to be followed
        self._gateway = gateway

    def follow(self, seq: int, payload: bytes) -> None:
        """Take in the next message of the stream."""
        message = decode(payload)
        before = self._index.apply(seq, message.summary)
        if seq in self._ahead:
            self._ahead.discard(seq)
            return
        self._foreign(seq, message)
        if before is not None and before.epoch != message.summary.epoch and not before.draft:
            # The message that ended the life was removed before it arrived here.
            self._feed.announce(before.session, before.epoch, changes=["deleted"])
        self._report(message)

    def acknowledged(self, seq: int, message: Message, seen: int) -> None:
        """Take in a message of this gateway.

        Args:
            seq: Its sequence.
            message: The message.
            seen: The sequence up to which the stream was followed.
        """
        if seq <= seen:
            return
        prev = message.summary.prev
        if prev <= seen or prev in self._ahead:
            self._ahead.add(seq)
            self._report(message)

    def settle(self, name: str) -> None:
        """Report the end of a session that was deleted while this gateway was away."""
        ended = self._index.drop(name)
        if ended is not None and not ended.draft:
            self._feed.announce(name, ended.epoch, changes=["deleted"])

    def _report(self, message: Message) -> None:
        summary = message.summary
        own = summary.id.startswith(self._gateway)
        if summary.draft:
            return
        changes: list[Change] = list(message.changes)
        events: list[Event] = []
        if own or self._feed.has_listener(summary.session):
            events = message.in_log()
        elif message.first < summary.next_offset:
            changes.append("appended")
        if events or changes:
            self._feed.announce(summary.session, summary.epoch, events, changes)
