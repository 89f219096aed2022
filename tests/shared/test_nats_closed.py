"""A client of NATS that is closed stays closed, whatever it was doing at that moment."""

from __future__ import annotations

import asyncio

from tests.nats import NatsStore
from tests.nats_wire import wire_to
from wakeline.gateway.log.engines.nats.link import Link
from wakeline.gateway.log.engines.nats.target import Target

TURNS = 12


async def test_a_client_that_is_closed_while_it_connects_again_stays_closed(nats: NatsStore) -> None:
    """It is closed at each turn of the loop that its connecting takes."""
    async with wire_to(nats.servers[0].port) as wire:
        target = Target.parse(wire.address(nats.address()))
        for turns in range(TURNS):
            link = Link(target)
            await link.open()
            wire.cut_all()
            async with asyncio.timeout(60):
                while link.client.is_connected:
                    await asyncio.sleep(0)
                while not link.client.is_connecting:
                    await asyncio.sleep(0)
            for _ in range(turns):
                await asyncio.sleep(0)
            await link.close()
            assert link.client.is_closed, f"after {turns} turns"
