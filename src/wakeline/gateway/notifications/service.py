"""Joins the parts of the room, as the settings ask for them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from wakeline.gateway.devices import Positions
from wakeline.gateway.log import Engine
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.notifications.channels.guard import AddressGuard
from wakeline.gateway.notifications.channels.kinds import channels_of
from wakeline.gateway.notifications.channels.outgoing import Outgoing
from wakeline.gateway.notifications.health import Health
from wakeline.gateway.notifications.notifier import Notifier
from wakeline.gateway.notifications.outbox import Outbox
from wakeline.gateway.notifications.rules import Rules
from wakeline.gateway.notifications.sending import Sender
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.settings import Settings


@asynccontextmanager
async def notifications(
    settings: Settings,
    engine: Engine,
    outbox: Outbox,
    positions: Positions,
    metrics: Metrics,
    ownership: Ownership,
) -> AsyncIterator[Notifier | None]:
    """Notify users for as long as the block lasts; yield None if there are no rules.

    Raises:
        SettingsInvalidError: A rule or a channel is invalid.
    """
    outgoing = Outgoing(AddressGuard(settings.outgoing_networks))
    channels = channels_of(settings.channels, outgoing)
    Rules(settings.notify, channels)  # refuses invalid rules before anything is written
    since = await outbox.since(list(settings.notify), time.time())
    if not settings.notify:
        yield None
        return
    identities = {name: channel.identity for name, channel in channels.items()}
    health = Health(
        engine, identities, lambda channel, disabled: metrics.channels_disabled.labels(channel).set(disabled)
    )
    notifier = Notifier(
        engine,
        outbox,
        positions,
        Rules(settings.notify, channels, since),
        Sender(outbox, channels, health, metrics),
        health,
        ownership,
    )
    async with outgoing, notifier:
        yield notifier
