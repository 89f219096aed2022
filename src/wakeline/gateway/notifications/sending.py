"""Sends the messages that are due, and stores the outcome of each attempt."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog

from wakeline.background import begin, cancel_all
from wakeline.errors import UnavailableError
from wakeline.events import Cursor, timestamp
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.notifications.channel_outages import ChannelOutages
from wakeline.gateway.notifications.channels.channel import Channel, Notification, Outcome, Verdict
from wakeline.gateway.notifications.crowding import relieved
from wakeline.gateway.notifications.health import Health
from wakeline.gateway.notifications.links import LINK_SECONDS, Linked, Links
from wakeline.gateway.notifications.outbox import Outbox, replaced
from wakeline.gateway.notifications.reaching import Devices, failure
from wakeline.gateway.notifications.schedule import pause
from wakeline.gateway.notifications.values import KEPT_ATTEMPTS, Attempt, Box, Message, State
from wakeline.gateway.notifications.wording import worded
from wakeline.gateway.runtime import log_failure
from wakeline.retry import Backoff

IN_FLIGHT: Final = 32
"""Most attempts of one channel at a time, so that a receiver that hangs holds up no other."""

USER_IN_FLIGHT: Final = 4
"""Most attempts of one user at a time, of a channel to devices: users choose the receivers, and one may hang."""

DEVICES_IN_FLIGHT: Final = 128
"""Most attempts of a channel to devices at a time, for all users."""

_BUSY_SECONDS: Final = 0.5
_TROUBLE_SECONDS: Final = 60.0  # before a message is sent again whose outcome could not be stored
_ENDS: Final[Mapping[Verdict, State]] = {"delivered": "delivered", "unneeded": "cancelled"}
_log = structlog.get_logger(__name__)


class Sender:
    """Sends messages in tasks of their own.

    Args:
        outbox: Stores the outcomes.
        channels: The channels, by name.
        health: Which channels are disabled.
        devices: Reaches the devices of users.
        metrics: Counts the attempts.
        links: Makes answer links; None if there are none.
    """

    def __init__(
        self,
        outbox: Outbox,
        channels: Mapping[str, Channel],
        health: Health,
        devices: Devices,
        metrics: Metrics,
        links: Links | None = None,
    ) -> None:
        self._links = links
        self._outbox = outbox
        self._channels = channels
        self._to_devices = frozenset(name for name, channel in channels.items() if channel.to_devices)
        self._outages = ChannelOutages(self._to_devices)
        self._health = health
        self._devices = devices
        self._metrics = metrics
        self._again: Callable[[str, float], object] = lambda session, at: None
        self._busy: Counter[tuple[str, str]] = Counter()  # by channel, and by user for a channel to devices
        # By session and id: whether the outcome is stored. A turn that has read the box before must not send it again.
        self._sending: dict[str, dict[str, bool]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self, again: Callable[[str, float], object]) -> None:
        """Call `again` with a session and a Unix time after each attempt: the session is due then."""
        self._again = again

    def settle(self, session: str) -> None:
        """Forget the attempts whose outcomes are stored: the box is read after this."""
        under_way: dict[str, bool] = {
            name: stored for name, stored in self._sending.pop(session, {}).items() if not stored
        }
        if under_way:
            self._sending[session] = under_way

    def relieved(self, box: Box, now: float) -> tuple[Box, list[Message]]:
        """Return the box without too many pushes, and those that were ended (`crowding.py`)."""
        return relieved(box, self._to_devices, now)

    def count_ended(self, session: str, ended: Sequence[Message]) -> None:
        """Count messages that ended so that they leave room for others.

        Call it after the box is stored.
        """
        for one in ended:
            self._count(session, one, Outcome("refused", one.attempts[-1].outcome))

    def send(self, session: str, box: Box, now: float) -> float | None:
        """Begin the attempts that are due; return the Unix time of the next ones."""
        times: list[float] = []
        for message in box.messages:
            if message.state != "pending" or message.id in self._sending.get(session, ()):
                continue
            if message.due > now:
                times.append(message.due)
            elif any(self._busy[slot] >= most for slot, most in self._slots(message)):
                times.append(now + _BUSY_SECONDS)
            else:
                self._busy.update(slot for slot, _ in self._slots(message))
                self._sending.setdefault(session, {})[message.id] = False
                begin(self._attempt(session, box.epoch, message), self._tasks)
        return min(times, default=None)

    def _slots(self, message: Message) -> list[tuple[tuple[str, str], int]]:
        """Return the counters that an attempt is counted in, with their limits."""
        if message.channel not in self._to_devices:
            return [((message.channel, ""), IN_FLIGHT)]
        return [((message.channel, ""), DEVICES_IN_FLIGHT), ((message.channel, f"user:{message.user}"), USER_IN_FLIGHT)]

    async def stop(self) -> None:
        """Stop all attempts; the next owner makes them again."""
        await cancel_all(*self._tasks)

    async def _attempt(self, session: str, epoch: str, message: Message) -> None:
        try:
            try:
                await self._make(session, epoch, message)
            finally:
                self._release(message)  # before the pause below, in which other messages are sent
        except Exception as error:  # noqa: BLE001 - the attempt is made again; no other code would report the error
            log_failure(_log, "an attempt to notify failed", error, session=session, id=message.id)
            await asyncio.sleep(_TROUBLE_SECONDS)
        finally:
            self._sending[session][message.id] = True
            self._again(session, time.time())

    async def _make(self, session: str, epoch: str, message: Message) -> None:
        """Make an attempt, and store its outcome."""
        began = time.time()
        try:
            outcome = await self._outcome(session, epoch, message)
        except UnavailableError:  # of the store, not of the receiver
            raise
        except Exception as error:  # noqa: BLE001 - it is a failed attempt, or the message would never end
            outcome = failure(error)
        self._outages.note(message.channel, outcome)
        changed = after(message, outcome, began, time.time() - began, random.random())
        ended = await self._store(session, epoch, changed, outcome)
        self._count(session, changed, outcome)
        self.count_ended(session, ended)

    def _release(self, message: Message) -> None:
        for slot, _ in self._slots(message):
            self._busy[slot] -= 1
            if not self._busy[slot]:
                del self._busy[slot]

    async def _outcome(self, session: str, epoch: str, message: Message) -> Outcome:
        channel = self._channels.get(message.channel)
        if channel is None:
            return Outcome("refused", "no such channel")
        if not message.forced and await self._health.is_disabled(message.channel):
            return Outcome("refused", "the channel is disabled")
        notification = notification_of(session, epoch, message, self._links)
        if channel.to_devices:
            return await self._devices.send(channel, notification, message.reached)
        return await channel.send(notification)

    async def _store(self, session: str, epoch: str, changed: Message, outcome: Outcome) -> list[Message]:
        """Store an outcome, as often as it takes: otherwise the message would be sent again.

        Returns:
            The messages that were ended, so that they leave room for others.
        """
        ended: list[Message] = []

        def change(box: Box) -> Box:
            relieved_box, ended[:] = self.relieved(stored_after(box, changed), time.time())
            return relieved_box

        backoff = Backoff(0.1, 5.0)
        while True:
            try:
                # First, so that a channel is disabled when the message that disabled it is dead.
                if outcome.verdict == "delivered":
                    await self._health.succeeded(changed.channel)
                elif outcome.verdict in ("failed", "gone"):
                    gone = outcome.verdict == "gone"
                    await self._health.failed(changed.channel, time.time(), outcome.reason, gone=gone)
                await self._outbox.change(session, epoch, change)
            except UnavailableError:
                await backoff.wait()
            else:
                return ended

    def _count(self, session: str, message: Message, outcome: Outcome) -> None:
        ended = message.state if message.state in ("dead", "cancelled") else outcome.verdict
        self._metrics.notifications.labels(message.channel, ended).inc()
        if message.state == "dead":
            why = "no attempt is left" if outcome.verdict == "failed" else "it cannot be delivered"
            _log.warning(
                f"a notification is dead: {why}",
                session=session,
                id=message.id,
                channel=message.channel,
                reason=outcome.reason,
            )


def after(message: Message, outcome: Outcome, began: float, seconds: float, draw: float) -> Message:
    """Return a message after an attempt.

    Args:
        message: The message before.
        outcome: The attempt's outcome.
        began: Unix time of its begin.
        seconds: Its duration.
        draw: A random number from 0 to 1, for the jitter.
    """
    attempts = (*message.attempts, Attempt(round(began, 3), round(seconds, 3), outcome.reason))[-KEPT_ATTEMPTS:]
    failures = message.failures + (outcome.verdict not in ("delivered", "unneeded"))
    wait = pause(failures, draw, wanted=outcome.retry_after) if outcome.verdict == "failed" else None
    return msgspec.structs.replace(
        message,
        attempts=attempts,
        failures=failures,
        state="pending" if wait is not None else _ENDS.get(outcome.verdict, "dead"),
        due=round(began + seconds + (wait or 0.0), 3),
        forced=False,
        reached=(*message.reached, *outcome.reached),
    )


def retried(message: Message, now: float) -> Message:
    """Return a message as it is sent again by hand: its schedule restarts.

    Answer links that have expired are replaced by new ones, so its body changes then.
    """
    return msgspec.structs.replace(
        message,
        state="pending",
        due=now,
        failures=0,
        forced=True,
        # Of a message that ended otherwise, the devices that were reached are left out again.
        reached=() if message.state == "delivered" else message.reached,
        renewed=now if message.linked and now >= _links_end(message) else message.renewed,
    )


def _links_end(message: Message) -> int:
    """Return the Unix time from which a message's answer links are not accepted."""
    return int(message.renewed or message.created) + LINK_SECONDS


def stored_after(box: Box, changed: Message) -> Box:
    """Return the box after an attempt.

    Meanwhile another gateway may have made one, too, or the message may have ended otherwise.
    """
    stored = next((message for message in box.messages if message.id == changed.id), changed)
    if stored.state == "dead" and changed.state == "pending":
        return box
    state: State = stored.state if changed.state == "pending" else changed.state
    made = dict.fromkeys((*stored.attempts, *changed.attempts))
    merged = msgspec.structs.replace(
        changed,
        state=state,
        requests=stored.requests,
        reached=tuple(dict.fromkeys((*stored.reached, *changed.reached))),
        attempts=tuple(sorted(made, key=lambda attempt: attempt.at))[-KEPT_ATTEMPTS:],
    )
    return replaced(box, merged)


def notification_of(session: str, epoch: str, message: Message, links: Links | None = None) -> Notification:
    """Return a message as channels send it; the same in each attempt."""
    title, text = worded(session, message)
    answers = {} if links is None else _answers(session, epoch, message, links)
    # A tap can open one address: that of the publisher, or the only question of the message.
    only = next(iter(answers.values())) if message.count == len(answers) == 1 else ""
    return Notification(
        message.id,
        message.user,
        session,
        body_of(session, epoch, message, answers),
        title=title,
        text=text,
        url=message.url or only,
        digest=message.digest,
        cursor=str(Cursor(epoch, message.first)),
        count=message.count,
        critical=message.critical,
    )


def _answers(session: str, epoch: str, message: Message, links: Links) -> dict[str, str]:
    """Return the URLs of a message's answer links, by the ids of their requests."""
    expires = _links_end(message)
    asked = zip(message.linked, message.asked_at, strict=True)
    return {id: links.url(Linked(session, epoch, id, message.user, expires, at)) for id, at in asked}


def body_of(session: str, epoch: str, message: Message, answers: Mapping[str, str]) -> bytes:
    """Return the JSON object that a channel sends; the same in each attempt."""
    linked = [{"request": id, "url": url} for id, url in answers.items()]
    words = {"title": message.title, "body": message.body, "url": message.url}
    return msgspec.json.encode(
        {
            "type": "notification",
            "timestamp": timestamp(datetime.fromtimestamp(message.created, UTC)),
            "data": {
                "session": session,
                "user": message.user,
                "rules": message.rules,
                "digest": message.digest,
                "cursor": str(Cursor(epoch, message.first)),
                "count": message.count,
                "events": message.events,
                **{name: text for name, text in words.items() if text},
                **({"answers": linked} if linked else {}),
            },
        }
    )
