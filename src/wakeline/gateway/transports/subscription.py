"""A subscription: one session of a WebSocket feed, read by its own device."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import structlog

from wakeline.errors import EpochChangedError, InternalError, NotAllowedError, SessionNotFoundError, WakelineError
from wakeline.events import Cursor, check_topic
from wakeline.gateway.access import Grant
from wakeline.gateway.delivery import Channel, Device, Lane, Opening, Topics, at_beginning
from wakeline.gateway.transports import feed_frames as frames
from wakeline.gateway.transports.feed import SharedConnection, Source

_log = structlog.get_logger(__name__)

_EVERYTHING: Final = Lane(frames.events, b"")


class Subscription:
    """One session of a connection.

    Args:
        source: The parts of the gateway that the feed uses.
        connection: The connection to which events are written.
        grant: The client's permissions.
        name: The device's id, if it has one.
        asked: The client's frame.

    Raises:
        TopicInvalidError: A topic is not a valid name.

    Attributes:
        task: The task that runs `run`.
    """

    __slots__ = ("_asked", "_connection", "_device", "_epoch", "_grant", "_name", "_source", "_topics", "task")

    task: asyncio.Task[None]

    def __init__(
        self, source: Source, connection: SharedConnection, grant: Grant, name: str | None, asked: frames.Subscribe
    ) -> None:
        self._source = source
        self._connection = connection
        self._grant = grant
        self._name = name
        self._asked = asked
        self._topics = grant.topics
        if asked.topics is not None:
            self._topics = Topics([check_topic(topic, own=True) for topic in asked.topics], within=grant.topics)
        if asked.view == "compact" and self._topics is not None:
            self._topics = self._topics.of_compact_view()
        self._device: Device | None = None
        self._epoch = ""

    @property
    def cursor(self) -> str | None:
        """The cursor after everything that was written; None if `subscribed` was not sent."""
        return str(Cursor(self._epoch, self._device.given)) if self._device is not None else None

    def check(self, grant: Grant) -> None:
        """Check that another grant of the user allows this subscription, too.

        Raises:
            NotAllowedError: It does not allow reading, or not these topics.
            SessionNotFoundError: It does not reach the session.
        """
        grant.check("read", self._asked.session)
        if grant.topics not in (None, self._grant.topics):
            raise NotAllowedError("the new token allows other topics; subscribe again from the cursor")

    def last(self, error: WakelineError) -> list[frames.ServerFrame]:
        """Return the frames to send when the subscription ends with an error."""
        error = self._source.arrivals.explained(error, waited=self._asked.wait_for_start)
        frame, cursor = frames.error_frame(error, self._asked.session), self.cursor
        return [frame] if cursor is None else [frame, frames.End(self._asked.session, cursor, "error")]

    async def run(self) -> list[frames.ServerFrame]:
        """Read the session until it ends; return the last frames to send.

        Raises:
            ConnectionError: The client has disconnected, or accepts no data.
        """
        name = self._asked.session
        try:
            await self._source.admit(name, self._grant, wait_for_start=self._asked.wait_for_start)
            async with self._source.hub.attach(name, self._asked.from_) as channel:
                return [await self._read(channel)]
        except WakelineError as error:
            return self.last(error)
        except ConnectionError:
            raise
        except Exception:  # noqa: BLE001 - a defect ends this subscription and no others
            _log.exception("a subscription failed", session=name)
            return self.last(InternalError("the server failed; this is a defect"))

    async def _read(self, channel: Channel) -> frames.End:
        asked, user = self._asked, self._grant.user
        offset = await self._source.start(channel, asked.from_, self._topics, user, self._name)
        lane = _EVERYTHING if self._topics is None else Lane(frames.events, b"", self._topics)
        opening = None
        if asked.view == "compact" and at_beginning(asked.from_, offset):
            opening = Opening(self._source.compacts, frames.compact_events)
        until_settled = asked.until == "settled"
        device = Device(channel, self._connection, lane, offset, until_settled=until_settled, opening=opening)
        self._device, self._epoch = device, channel.epoch
        self._connection.write(
            frames.encode(frames.Subscribed(asked.session, str(Cursor(channel.epoch, offset)), channel.epoch))
        )
        announcing = asyncio.create_task(self._announce()) if asked.presence else None
        reason: frames.WhatEnded
        try:
            with self._source.connected(channel, user, self._name, lambda: device.given, "websocket"):
                await device.run()
            reason = "deleted" if channel.deleted else "closed" if channel.closed else "settled"
        except (SessionNotFoundError, EpochChangedError):
            reason = "deleted"
        finally:
            if announcing is not None:
                announcing.cancel()
        return frames.End(asked.session, str(Cursor(channel.epoch, device.offset)), reason)

    async def _announce(self) -> None:
        """Send joins and leaves of the session's devices."""
        session = self._asked.session
        with self._source.presence.watch(session) as watch, suppress(ConnectionError):
            while True:
                for change in await watch.next():
                    await self._connection.drained()
                    frame = frames.Presence(session, change.event, change.user, change.device)
                    self._connection.write(frames.encode(frame))
