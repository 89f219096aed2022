"""Makes the channels of the settings: webhooks, Web Push, and the kinds of other packages."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Final

from wakeline.errors import SettingsInvalidError
from wakeline.gateway.notifications.channels.channel import Channel
from wakeline.gateway.notifications.channels.outgoing import Outgoing
from wakeline.gateway.notifications.channels.web_push import WebPush
from wakeline.gateway.notifications.channels.webhook import Webhook

GROUP: Final = "wakeline.channels"
_KINDS: Final[Mapping[str, type[Channel]]] = {"webhook": Webhook, "web_push": WebPush}


def channels_of(tables: Mapping[str, Mapping[str, Any]], outgoing: Outgoing) -> dict[str, Channel]:
    """Return the channels of the settings, by name.

    Raises:
        SettingsInvalidError: A table has no known type, or options that its type refuses.
    """
    return {name: _channel(name, table, outgoing) for name, table in tables.items()}


def _channel(name: str, table: Mapping[str, Any], outgoing: Outgoing) -> Channel:
    kind = table.get("type", "webhook")
    options = {option: value for option, value in table.items() if option != "type"}
    return _class(name, kind).create(name, options, outgoing)


def _class(name: str, kind: object) -> type[Channel]:
    if isinstance(kind, str) and kind in _KINDS:
        return _KINDS[kind]
    others = {entry.name: entry for entry in entry_points(group=GROUP)}
    if not isinstance(kind, str) or kind not in others:
        known = ", ".join(sorted({*_KINDS, *others}))
        raise SettingsInvalidError(
            f"expected the type of channels.{name} to be one of {known}, got {kind!r}",
            hint=f"Install the package that has the kind as an entry point of {GROUP}, or correct the type.",
        )
    loaded = others[kind].load()
    if not (isinstance(loaded, type) and issubclass(loaded, Channel)):
        raise SettingsInvalidError(f"expected a subclass of Channel as the kind {kind!r}, got {loaded!r}")
    return loaded
