"""Joins the parts of the room, as the settings ask for them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from wakeline.errors import SessionNameInvalidError, SettingsInvalidError
from wakeline.events import check_session_name
from wakeline.gateway.devices import Positions
from wakeline.gateway.log import Engine
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.notifications.cautions import cautions
from wakeline.gateway.notifications.channels.channel import Channel
from wakeline.gateway.notifications.channels.guard import AddressGuard
from wakeline.gateway.notifications.channels.kinds import channels_of
from wakeline.gateway.notifications.channels.outgoing import Outgoing
from wakeline.gateway.notifications.channels.web_push import WebPush
from wakeline.gateway.notifications.health import Health
from wakeline.gateway.notifications.links import Links
from wakeline.gateway.notifications.notifier import Notifier
from wakeline.gateway.notifications.operations import Operations
from wakeline.gateway.notifications.outbox import Outbox
from wakeline.gateway.notifications.reaching import Devices
from wakeline.gateway.notifications.rules import Rules
from wakeline.gateway.notifications.sending import Sender
from wakeline.gateway.notifications.subscriptions import Subscriptions
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.settings import Settings

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Notifying:
    """The parts of the room that other rooms use.

    Attributes:
        notifier: Decides and sends; None if there are no rules.
        push: The channel to devices; None if the settings have none.
        links: Makes and reads answer links; None without `public_url`.
    """

    notifier: Notifier | None
    push: WebPush | None
    links: Links | None


@asynccontextmanager
async def notifications(
    settings: Settings,
    engine: Engine,
    outbox: Outbox,
    positions: Positions,
    metrics: Metrics,
    ownership: Ownership,
) -> AsyncIterator[Notifying]:
    """Notify users for as long as the block lasts, if there are rules.

    Raises:
        SettingsInvalidError: A rule or a channel is invalid, or there are two to devices.
    """
    outgoing = Outgoing(AddressGuard(settings.outgoing_networks))
    channels = channels_of(settings.channels, outgoing)
    Rules(settings.notify, channels)  # refuses invalid rules before anything is written
    push = _push_of(channels)
    _check_operations(settings.operations)
    links = await _links(settings, engine)
    for sentence in cautions(settings):
        _log.warning(sentence)
    since = await outbox.since(list(settings.notify), time.time())
    if not settings.notify:
        yield Notifying(None, push, links)
        return
    identities = {name: channel.identity for name, channel in channels.items() if not channel.to_devices}
    health = Health(
        engine,
        identities,
        lambda channel, disabled: metrics.channels_disabled.labels(channel).set(disabled),
        Operations(engine, settings.operations),
    )
    notifier = Notifier(
        engine,
        outbox,
        positions,
        Rules(settings.notify, channels, since),
        Sender(outbox, channels, health, Devices(Subscriptions(engine), metrics), metrics, links),
        health,
        ownership,
    )
    async with outgoing, notifier:
        yield Notifying(notifier, push, links)


async def _links(settings: Settings, engine: Engine) -> Links | None:
    """Return the answer links; the settings must have their URL if a rule asks for links."""
    wanted = next((name for name, rule in settings.notify.items() if rule.links), None)
    if settings.public_url is not None:
        return await Links.load(engine, settings.public_url)
    if wanted is not None:
        raise SettingsInvalidError(
            f"expected public_url for the links of notify.{wanted}, got none",
            hint="Set public_url to the address at which people reach the gateway, or leave links out.",
        )
    return None


def _check_operations(session: str | None) -> None:
    """Raise unless the session of the gateway's own events can exist."""
    try:
        check_session_name("-" if session is None else session)
    except SessionNameInvalidError as error:
        raise SettingsInvalidError(f"in operations: {error.message}", hint=error.hint) from None


def _push_of(channels: Mapping[str, Channel]) -> WebPush | None:
    """Return the channel that browsers subscribe to: with one key, and so one channel."""
    found = {name: channel for name, channel in channels.items() if isinstance(channel, WebPush)}
    if len(found) > 1:
        raise SettingsInvalidError(
            f"expected at most one channel of the type web_push, got {', '.join(sorted(found))}",
            hint="Leave one of them: a browser subscribes with one key.",
        )
    return next(iter(found.values()), None)
