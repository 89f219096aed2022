"""The interface of every channel, and the result of an attempt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from wakeline.gateway.notifications.channels.outgoing import Outgoing

Verdict: TypeAlias = Literal["delivered", "failed", "refused", "gone"]
"""`failed`: try again later. `refused`: never send this message again. `gone`: send nothing to this receiver any more."""


class Outcome(msgspec.Struct, frozen=True):
    """The result of one attempt.

    Attributes:
        verdict: What follows from it.
        reason: The answer's status or the error, for people.
        retry_after: The seconds that the receiver asks to wait. Default: 0.
    """

    verdict: Verdict
    reason: str
    retry_after: float = 0.0


class Notification(msgspec.Struct, frozen=True):
    """A notification, as a channel sends it.

    Attributes:
        id: The notification's name, the same in each attempt.
        user: The user to notify.
        session: The session's name.
        body: The JSON object of the notification, as `docs/concepts/notifications.md` describes it.
    """

    id: str
    user: str
    session: str
    body: bytes


class Channel(ABC):
    """Sends notifications to one receiver.

    Subclasses are made with `create`; an entry point of the group `wakeline.channels` names the class, and the entry point's
    own name is the `type` in the settings.

    Attributes:
        identity: Text that changes with the receiver: a receiver that was disabled is enabled by another one.
    """

    identity: str = ""

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
