"""Creates, appends to and closes streams.

The log detects duplicates, as for every publisher.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from wakeline.errors import (
    EpochChangedError,
    SequenceGapError,
    SessionClosedError,
    SessionNotFoundError,
    StreamConflictError,
)
from wakeline.events import NewEvent, timestamp
from wakeline.gateway.log import Append, Appended, Engine, NewSession, Position, Publication
from wakeline.gateway.sessions import Deletions, SessionConfig, encode_config
from wakeline.gateway.settings import Settings
from wakeline.gateway.transports.durable_streams.content import Content, closed_event
from wakeline.gateway.transports.durable_streams.headers import Lifetime, Producer
from wakeline.gateway.transports.durable_streams.lifetimes import Lifetimes
from wakeline.gateway.transports.durable_streams.refusals import StreamBodyInvalidError, StreamInvalidError
from wakeline.gateway.transports.durable_streams.stream import Stream

Admit: TypeAlias = Callable[[int], None]


class Creation(msgspec.Struct, frozen=True):
    """The properties of a stream to create.

    Attributes:
        content_type: Its content type.
        lifetime: When it ends by itself.
        closed: Whether it is closed after the body.
        body: Its first content; may be empty.
    """

    content_type: str
    lifetime: Lifetime
    closed: bool
    body: bytes


class Post(msgspec.Struct, frozen=True):
    """A request to append.

    Attributes:
        content_type: The body's content type; None if the request has none.
        body: The content; empty to close only.
        close: Whether to close the stream after it.
        producer: The producer that appends; without one, a retry may append a second copy.
        seq: The `Stream-Seq`.
    """

    content_type: str | None
    body: bytes
    close: bool
    producer: Producer | None
    seq: str | None


class Posted(msgspec.Struct, frozen=True):
    """The result of an append.

    Attributes:
        stream: The stream after it.
        sequence: The producer's latest sequence; None without a producer.
        duplicate: Whether all of it was appended before.
    """

    stream: Stream
    sequence: int | None
    duplicate: bool


class Streams:
    """Creates, finds, writes and deletes streams.

    Args:
        engine: The log.
        deletions: Deletes sessions.
        lifetimes: The ends of streams.
        settings: The largest data of one event, and the most messages of one request.
    """

    def __init__(self, engine: Engine, deletions: Deletions, lifetimes: Lifetimes, settings: Settings) -> None:
        self._engine = engine
        self._deletions = deletions
        self._lifetimes = lifetimes
        self._most, self._most_events = settings.max_event_bytes, settings.max_batch_events

    async def find(self, name: str) -> Stream:
        """Return the stream in its current state.

        Raises:
            SessionNotFoundError: There is no such stream, or it has ended.
        """
        state = await self._engine.state(name)
        stream = Stream.of(state) if state is not None else None
        if stream is not None and self._lifetimes.over(stream) and await self.delete(stream, unless_open=True):
            stream = None
        if stream is None:
            raise SessionNotFoundError(f"there is no session {name!r}")
        return stream

    async def delete(self, stream: Stream, *, unless_open: bool = False) -> bool:
        """Delete a stream and return whether it was; `unless_open` spares one with an open run."""
        return await self._deletions.delete(stream.name, epoch=stream.epoch, unless_open=unless_open)

    async def create(self, name: str, asked: Creation, admit: Admit) -> tuple[Stream, bool]:
        """Create a stream with its first content as a whole; leave an equal stream unchanged.

        Args:
            name: The session's name.
            asked: The properties of the stream.
            admit: Called with the number of messages before they are appended; may refuse them.

        Returns:
            The stream, and whether this call created it.

        Raises:
            StreamConflictError: A stream with other properties exists.
            StreamBodyInvalidError: The body does not fit the stream's content.
            EventTooLargeError: A message is over the limit.
            BatchTooLargeError: There are too many messages.
        """
        events = await self._events(Content.of(asked.content_type), asked.body, asked.closed)
        if asked.body:
            admit(len(events))
        while True:
            try:
                stream = await self.find(name)
            except SessionNotFoundError:
                made = await self._make(name, asked, events)
                if made is not None:
                    return made, True
            else:
                _check_same(stream, asked)
                return stream, False

    async def append(self, stream: Stream, post: Post, admit: Admit) -> Posted:
        """Append a post, and close the stream if requested.

        Args:
            stream: The stream.
            post: The request.
            admit: Called with the number of messages before they are appended; may refuse them.

        Raises:
            SessionNotFoundError: The stream was deleted meanwhile.
            SessionClosedError: The stream is closed, and does not contain all of the post.
            StreamConflictError: The content type is not the stream's, or `Stream-Seq` does not increase.
            StreamInvalidError: The content type is missing, or a producer's new epoch does not begin with 0.
            StreamBodyInvalidError: The body does not fit the stream's content.
            EventTooLargeError: A message is over the limit.
            BatchTooLargeError: There are too many messages.
            SequenceGapError: Earlier requests of the producer are missing.
            AttemptFencedError: The producer has a later epoch.
        """
        await self._lifetimes.use(stream)
        try:
            appended = await self._append(stream, post, admit)
        except EpochChangedError:
            raise SessionNotFoundError(f"there is no session {stream.name!r} any more") from None
        except SessionClosedError:
            if post.body:
                raise
            return Posted(await self.find(stream.name), None, duplicate=True)  # it is closed already, as requested
        except SequenceGapError:
            if await self._begins_an_epoch(stream, post.producer):
                raise StreamInvalidError("expected a new Producer-Epoch to begin with Producer-Seq 0") from None
            raise
        if appended.duplicate:
            latest = await self._position(stream, post.producer)
            return Posted(await self.find(stream.name), latest.next_sequence - 1 if latest else None, duplicate=True)
        state = msgspec.structs.replace(stream.state, next_offset=appended.next_offset, closed=post.close)
        return Posted(Stream.of(state), post.producer.sequence if post.producer else None, duplicate=False)

    async def _append(self, stream: Stream, post: Post, admit: Admit) -> Appended:
        publication = post.producer.publication if post.producer else None
        closed = stream.state.closed
        # A repeated request receives the same answer, whatever its headers and the stream's state are now.
        if (closed or post.close or post.seq is not None) and await self._is_there(stream, publication):
            again = (closed_event(timestamp()),)
            return await self._engine.append(Append(stream.name, again, publication, epoch=stream.epoch))
        if closed:
            raise SessionClosedError(f"expected an open stream, got {stream.name!r}, which is closed")
        events = await self._checked(stream, post)
        admit(len(events))
        return await self._engine.append(
            Append(stream.name, events, publication, close=post.close, epoch=stream.epoch, order=post.seq or "")
        )

    async def _make(self, name: str, asked: Creation, events: tuple[NewEvent, ...]) -> Stream | None:
        """Create a stream; return None if another request has created it first."""
        its = SessionConfig(
            content_type=asked.content_type, ttl=asked.lifetime.ttl, expires_at=asked.lifetime.expires_at
        )
        state, created = await self._engine.create_session(
            NewSession(
                name,
                config=encode_config(its),
                events=events,
                closed=asked.closed,
                deadline=self._lifetimes.first_deadline(asked.lifetime),
            )
        )
        if not created:
            return None
        stream = Stream.of(state)
        await self._lifetimes.use(stream)
        return stream

    async def _checked(self, stream: Stream, post: Post) -> tuple[NewEvent, ...]:
        if post.body:
            if post.content_type is None:
                raise StreamInvalidError("expected Content-Type with a body, got none")
            if not stream.content.agrees(post.content_type):
                raise StreamConflictError(
                    f"expected Content-Type {stream.content.type}, as the stream has, got {post.content_type}"
                )
        events = await self._events(stream.content, post.body, post.close)
        if post.body and len(events) == post.close:
            raise StreamBodyInvalidError("expected at least one message, got an empty array")
        return events

    async def _is_there(self, stream: Stream, publication: Publication | None) -> bool:
        """Return whether the log contains this request of a producer."""
        if publication is None:
            return False
        position = await self._engine.position(stream.name, publication.publisher)
        return (
            position is not None
            and position.attempt == publication.attempt
            and position.next_sequence > publication.sequence
        )

    async def _events(self, content: Content, body: bytes, close: bool) -> tuple[NewEvent, ...]:
        time = timestamp()
        events: tuple[NewEvent, ...] = ()
        if body:
            events = await content.events(body, time=time, most=self._most, most_events=self._most_events)
        return (*events, closed_event(time)) if close else events

    async def _begins_an_epoch(self, stream: Stream, producer: Producer | None) -> bool:
        position = await self._position(stream, producer)
        return position is not None and producer is not None and position.attempt < producer.publication.attempt

    async def _position(self, stream: Stream, producer: Producer | None) -> Position | None:
        return None if producer is None else await self._engine.position(stream.name, producer.publisher)


def _check_same(stream: Stream, asked: Creation) -> None:
    if not stream.content.agrees(asked.content_type):
        raise StreamConflictError(
            f"expected the existing stream's content type {stream.content.type}, got {asked.content_type}"
        )
    if stream.lifetime != asked.lifetime:
        raise StreamConflictError("expected the existing stream's Stream-TTL and Stream-Expires-At, got others")
    if stream.state.closed != asked.closed:
        raise StreamConflictError(
            f"expected a stream that is {'closed' if stream.state.closed else 'open'}, as the existing one is"
        )
