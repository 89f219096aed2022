"""The outbox of one session: its cursor, the events that wait, and the messages."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from wakeline.notices import Notice

State: TypeAlias = Literal["pending", "delivered", "cancelled", "dead"]
"""`cancelled`: the user has seen the events, or the requests were closed, before the message was accepted; or the user has no
device to send it to. `dead`: no attempt is left."""


KEPT_ATTEMPTS: Final = 10
"""The latest attempts of a message that are kept."""


class Waiting(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event that a rule has matched, until its notifications are decided.

    Attributes:
        offset: The event's offset.
        rule: The rule's name.
        time: The event's time, as the log has it.
        due: Unix time from which users who have not seen it are notified.
        event: The event's JSON; without its data if that is long.
        after: The last user, by name, who is decided already; None if none is.
        notice: The words that the publisher asked for, and its receivers.
        request: The id of the request for input that the event is; empty for another event.
        audience: The users that the request names.
        linkable: Whether an answer link can answer the request.
    """

    offset: int
    rule: str
    time: str
    due: float
    event: msgspec.Raw
    after: str | None = None
    notice: Notice | None = None
    request: str = ""
    audience: tuple[str, ...] = ()
    linkable: bool = False


class Attempt(msgspec.Struct, frozen=True):
    """One attempt to send a message.

    Attributes:
        at: Unix time of its begin.
        seconds: Its duration.
        outcome: The answer's status, or the error.
    """

    at: float
    seconds: float
    outcome: str


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """A notification of one user through one channel.

    Attributes:
        id: Its name, the same in each attempt: the receiver's idempotency key.
        user: The user.
        channel: The channel's name.
        rules: The rules that matched its events.
        digest: The name under which its events were folded.
        created: Unix time of the decision.
        first: The offset of its oldest event.
        last: The offset of its newest event.
        count: The number of events.
        events: The JSON of the newest ones, in order.
        unless: The position that cancels it.
        state: Whether it is still to be sent.
        due: Unix time of the next attempt.
        failures: The attempts since it was created, or was retried by hand.
        forced: Whether the next attempt was requested by hand, so that it is made at a disabled channel, too.
        attempts: The latest attempts.
        critical: Whether its rule calls it critical.
        reached: The devices that have it, of a channel to devices, by their short names.
        title: The title that the publisher of its newest event asked for; empty for none.
        body: The publisher's text.
        url: The publisher's address to open.
        requests: The requests for input that are still open, if all of its events are such requests.
        linked: The requests that it has answer links for, the newest ones.
        asked_at: The times of those requests' events, in the same order.
        renewed: Unix time of the retry by hand that has made new links, because the first ones had expired; 0 if none has.
    """

    id: str
    user: str
    channel: str
    rules: tuple[str, ...]
    digest: str
    created: float
    first: int
    last: int
    count: int
    events: tuple[msgspec.Raw, ...]
    unless: Literal["seen", "delivered"]
    state: State = "pending"
    due: float = 0.0
    failures: int = 0
    forced: bool = False
    attempts: tuple[Attempt, ...] = ()
    critical: bool = False
    reached: tuple[str, ...] = ()
    title: str = ""
    body: str = ""
    url: str = ""
    requests: tuple[str, ...] = ()
    linked: tuple[str, ...] = ()
    asked_at: tuple[str, ...] = ()
    renewed: float = 0.0


class Box(msgspec.Struct, frozen=True, omit_defaults=True):
    """One life of a session, as its notifications are concerned. It is stored as one record.

    Attributes:
        epoch: The life.
        offset: The cursor: events below it have been matched.
        waiting: The matched events whose notifications are not decided yet.
        messages: What was decided, oldest first.
    """

    epoch: str
    offset: int
    waiting: tuple[Waiting, ...] = ()
    messages: tuple[Message, ...] = ()
