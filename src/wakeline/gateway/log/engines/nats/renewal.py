"""Gives every session a new epoch after a restore, and carries the records over.

A stream has no transactions over several subjects, so a renewal that is cut short has renewed some sessions. It is run again:
each session remembers its earlier epochs, from which records that still have one of them are carried.
"""

from __future__ import annotations

from collections.abc import Iterable

from wakeline.gateway.log.engines.nats.messages import Summary
from wakeline.gateway.log.engines.nats.records import RecordStore
from wakeline.gateway.log.store import Carry

_TOGETHER = 100


async def carry_over(records: RecordStore, carry: Carry, sessions: Iterable[Summary]) -> None:
    """Replace the earlier epochs of sessions in the keys and values of records."""
    epochs = {epoch: summary.epoch for summary in sessions for epoch in summary.former}
    key = ""
    while some := await records.listed("", key, _TOGETHER):
        for record in some:
            name, value = carry(record.key, record.value, epochs)
            if name == record.key and value != record.value:
                await records.change(name, value, record.revision)
            elif name != record.key:
                there = (await records.get([name])).get(name)
                if there is None or there.value != value:  # an interrupted renewal may have written it
                    await records.change(name, value, there.revision if there else 0)
                await records.change(record.key, None, record.revision)
        key = some[-1].key
