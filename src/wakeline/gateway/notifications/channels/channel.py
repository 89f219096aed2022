"""The interface of every channel, and the result of an attempt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from wakeline.gateway.notifications.channels.outgoing import Outgoing

Verdict: TypeAlias = Literal["delivered", "failed", "refused", "gone", "unneeded"]
"""The consequence of an attempt.

`failed`: try again later. `refused`: never send this message again. `gone`: send nothing to this receiver any more.
`unneeded`: there is no receiver.
"""


class Outcome(msgspec.Struct, frozen=True):
    """The result of one attempt.

    Attributes:
        verdict: What follows from it.
        reason: The answer's status or the error, for people.
        retry_after: The seconds that the receiver asks to wait. Default: 0.
        reached: The devices that have it now, by their short names. Default: none.
    """

    verdict: Verdict
    reason: str
    retry_after: float = 0.0
    reached: tuple[str, ...] = ()


class Subscription(msgspec.Struct, frozen=True, omit_defaults=True):
    """A device's push subscription, as it is stored.

    Attributes:
        device: The device's id.
        endpoint: The URL at the push service; whoever knows it can send to the device, so it is shown to nobody.
        p256dh: The device's public key, in base64url.
        auth: Its secret, in base64url.
        registered: Unix time of the last registration.
        failing: Unix time of the first failure since the last accepted push; None if there was none.
    """

    device: str
    endpoint: str
    p256dh: str
    auth: str
    registered: float
    failing: float | None = None


class Notification(msgspec.Struct, frozen=True):
    """A notification, as a channel sends it.

    Attributes:
        id: The notification's name, the same in each attempt.
        user: The user to notify.
        session: The session's name.
        body: The JSON object of the notification, as `docs/concepts/channels.md` describes it.
        title: A line for people.
        text: A few more lines.
        url: The address to open; empty for the channel's own.
        digest: The name under which its events were folded.
        cursor: Reads the session from its oldest event on.
        count: The number of events.
        critical: Whether a rule calls it critical.
        subscription: The subscription to send to, for a channel to devices.
    """

    id: str
    user: str
    session: str
    body: bytes
    title: str = ""
    text: str = ""
    url: str = ""
    digest: str = ""
    cursor: str = ""
    count: int = 1
    critical: bool = False
    subscription: Subscription | None = None


class Channel(ABC):
    """Sends notifications to one receiver.

    Subclasses are made with `create`; an entry point of the group `wakeline.channels` names the class, and the entry point's
    own name is the `type` in the settings.

    Attributes:
        identity: Text that changes with the receiver: a receiver that was disabled is enabled by another one.
        to_devices: Whether it sends to each push subscription of a user, and not to one receiver.
    """

    identity: str = ""
    to_devices: bool = False

    @classmethod
    @abstractmethod
    def create(cls, name: str, options: Mapping[str, Any], outgoing: Outgoing) -> Channel:
        """Return the channel of a table in the settings.

        Args:
            name: The table's name.
            options: Its members, without `type`.
            outgoing: The client to send with.

        Raises:
            SettingsInvalidError: A member is unknown or has an invalid value.
        """

    @abstractmethod
    async def send(self, notification: Notification) -> Outcome:
        """Make one attempt; it ends within `TIMEOUT` seconds and raises nothing."""
