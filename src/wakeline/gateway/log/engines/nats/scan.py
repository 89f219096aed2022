"""The last message of every subject of a stream, which a gateway reads when it starts."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import msgspec

from wakeline.gateway.log.engines.nats.link import UNAVAILABLE, Link, RefusedError
from wakeline.gateway.log.engines.nats.messages import Stored
from wakeline.gateway.log.engines.nats.streams import Stream

_BATCH: Final = 500
_BATCH_BYTES: Final = 4 * 1024 * 1024
_IDLE_NANOSECONDS: Final = 30_000_000_000
_SEQUENCE: Final = 5  # of the parts of a message's acknowledgement subject
_PENDING: Final = 8


async def last_messages(link: Link, stream: Stream) -> AsyncIterator[Stored]:
    """Yield the last message of every subject, by a consumer that is removed at the end.

    Raises:
        StorageFailedError: They cannot be read.
    """
    name = secrets.token_hex(8)
    config = {
        "name": name,
        "filter_subject": f"{stream.subjects}.*",
        "deliver_policy": "last_per_subject",
        "ack_policy": "none",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": _IDLE_NANOSECONDS,
    }
    try:
        await link.api(
            f"CONSUMER.CREATE.{stream.name}.{name}", {"stream_name": stream.name, "config": config, "action": "create"}
        )
    except RefusedError as error:
        raise link.failed(error) from error
    request = msgspec.json.encode({"batch": _BATCH, "max_bytes": _BATCH_BYTES, "no_wait": True})
    pending = -1
    while pending != 0:
        try:
            found = await link.pull(f"$JS.API.CONSUMER.MSG.NEXT.{stream.name}.{name}", request, _BATCH)
        except UNAVAILABLE as error:
            raise link.failed(error) from error
        for msg in found:
            parts = msg.reply.split(".")
            pending = int(parts[-1 if len(parts) == _PENDING + 1 else _PENDING + 2])
            yield int(parts[_SEQUENCE if len(parts) == _PENDING + 1 else _SEQUENCE + 2]), msg.data
        if not found:
            break
    with suppress(RefusedError):  # it is removed by itself, too
        await link.api(f"CONSUMER.DELETE.{stream.name}.{name}")
