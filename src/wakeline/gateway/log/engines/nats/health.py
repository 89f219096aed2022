"""The health of a store as a gateway sees it: connection, space, leaders of streams."""

from __future__ import annotations

from collections.abc import Sequence

from wakeline.gateway.log.engines.nats.link import Link
from wakeline.gateway.log.engines.nats.tail import Tail


def health(link: Link, records: Tail, sessions: Sequence[Tail]) -> str:
    """Return `ok`, or the problem; see `Engine.health`.

    Args:
        link: The connection.
        records: Follows the stream of records.
        sessions: Follow the streams of sessions.
    """
    if not link.client.is_connected:
        return "failed: no connection to NATS"
    if not _serves(link, records):
        return f"failed: stream {records.name} does not answer"
    silent = [tail.name for tail in sessions if not _serves(link, tail)]
    if len(silent) == len(sessions):
        return "failed: no stream of sessions answers"
    if link.is_full:
        return "full: NATS has no space; appends are refused until it has"
    # All gateways see the same: if they were unready, the sessions of the other streams would not be served either.
    if len(silent) > 1:
        return f"ok, but {len(silent)} streams do not answer: {', '.join(silent)}"
    return f"ok, but stream {silent[0]} does not answer" if silent else "ok"


def _serves(link: Link, tail: Tail) -> bool:
    # A server whose disk is full describes its streams, and does not answer a message that it cannot write.
    return tail.answers and link.stores(tail.name)
