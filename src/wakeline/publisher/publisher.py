"""`SessionPublisher` publishes from an activity or a service straight into a session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, Unpack, overload
from uuid import uuid4

from wakeline.buffer import WhenFull
from wakeline.client.http import Token, gateway_token, gateway_url
from wakeline.errors import UnavailableError
from wakeline.logs import get_logger
from wakeline.publisher import activity
from wakeline.publisher.detour import Detour
from wakeline.publisher.errors import PublishDroppedError, PublisherMisusedError, reports
from wakeline.publisher.frames import Identity
from wakeline.publisher.heartbeat import Heartbeats
from wakeline.publisher.intake import Intake
from wakeline.publisher.options import (
    OnUnavailable,
    PublisherOptions,
    check_identity,
    check_route,
)
from wakeline.publisher.places import Places
from wakeline.publisher.pool import shared_connection
from wakeline.publisher.requests import AskedRequest, Asker, Asking
from wakeline.publisher.route import Route
from wakeline.publisher.sender import Sender
from wakeline.publisher.topics import Append, Topic
from wakeline.publisher.values import Converter, Values
from wakeline.streams.topics import TopicTypes

if TYPE_CHECKING:
    from temporalio.client import Client

T = TypeVar("T")
logger = get_logger(__name__)

_FIRST_OPEN_SECONDS: Final = 5.0
_FAILING_FLUSH_SECONDS: Final = 5.0
_places = Places()


class SessionPublisher:
    """A publisher of one session: durable in about a millisecond, each event once, in order.

        async with SessionPublisher.from_within_activity() as session:
            answer = session.topic("delta", type=TextDelta)
            async for token in model():
                await answer.publish(TextDelta(token))

    The first event is sent at once; events that arrive while it is under way form the next batch. Leaving the block
    makes all events durable. All publishers of an event loop share one connection.

    Args:
        url: The gateway's URL; `WAKELINE_URL` in the environment by default, else `http://127.0.0.1:7777`.
        token: The token, `WAKELINE_TOKEN` in the environment by default, or a function, plain or async, that returns one:
            called before the first connection and whenever the last token has expired.
        session: The session's name; the first publisher to open creates it.
        publisher: A name for this source of events, 1 to 256 visible ASCII characters; unique by default. One publisher
            of a name may be open at a time.
        attempt: The attempt of the publisher, from 1; the gateway refuses earlier attempts from then on.
        run: The workflow run whose output it publishes.
        activity: The activity id.
        workflow: The Workflow Id of the workflow that it belongs to. The gateway follows it into the session, devices or
            not, if the token may `manage` the session, or one of the two names the other (PROTOCOL.md §3).
        namespace: That workflow's namespace; the gateway's main one by default.
        supersede: Whether the attempt supersedes the events of earlier ones; by default if there is an `activity`.
        resume: Continue after the events of the last attempt: supersede nothing; `resumed` is their number.
        linger: How long a batch that is not full waits for more events; 0 by default.
        max_batch: The most events in one append.
        max_buffer: The most events that may wait to be sent; they take at most 64 MiB.
        when_full: The policy of `publish` for a full buffer. `block`: wait for room. `error`: raise `BufferFullError`.
            `drop_oldest`: drop the oldest events that wait, and report them. `coalesce`: replace a waiting event of the
            same topic and key, also if there is room; if there is none, wait for room.
        max_retry_duration: How long delivery is retried before events are abandoned and reported; 10 minutes by default.
        on_unavailable: The policy for a gateway that cannot be reached. `block`: events wait. `error`: `publish` and
            `flush` raise at once. `spool`: events are stored in the file `spool`, durable when `flush` returns, and sent
            when the gateway is back. `workflow`: events go through the workflow's own stream, if it hosts one.
        spool: The file, with `on_unavailable="spool"`.
        data_converter: Converts values, and encodes them if it has a codec; `temporalio`'s own class. Plain JSON by default.
        on_dropped: Called with a report of undelivered events; without it, the next publish, flush or close raises it.
        temporal_client: Signals `workflow` with `on_unavailable="workflow"`, by default the session's namesake.

    Raises:
        RequestInvalidError: An option is invalid.
        SessionNameInvalidError: The session's name is invalid.
    """

    def __init__(
        self,
        url: str | None = None,
        token: Token | None = None,
        *,
        session: str,
        publisher: str | None = None,
        attempt: int = 1,
        run: str | None = None,
        activity: str | None = None,
        workflow: str | None = None,
        namespace: str | None = None,
        supersede: bool | None = None,
        resume: bool = False,
        linger: timedelta = timedelta(0),
        max_batch: int = 500,
        max_buffer: int = 10_000,
        when_full: WhenFull = "block",
        max_retry_duration: timedelta = timedelta(minutes=10),
        on_unavailable: OnUnavailable = "block",
        spool: str | PathLike[str] | None = None,
        data_converter: Converter | None = None,
        on_dropped: Callable[[PublishDroppedError], Any] | None = None,
        temporal_client: Client | None = None,
    ) -> None:
        self.url = gateway_url(url).rstrip("/")
        self._token = gateway_token(token)
        self.identity = Identity(
            session=session,
            publisher=uuid4().hex if publisher is None else publisher,
            attempt=attempt,
            run=run,
            activity=activity,
            workflow=workflow,
            namespace=namespace,
            supersede=False if resume else supersede,
        )
        check_identity(self.identity)
        self._route = Route(linger, max_batch, max_retry_duration, on_unavailable, spool, temporal_client)
        check_route(self._route, max_buffer, when_full)
        # A unique name has no earlier events, so its first sequence number is 0 without asking the gateway.
        self._is_new = publisher is None
        self._resume = resume
        self._values = Values(data_converter, self._route.codec_seconds)
        self._types = TopicTypes()
        self._topics: dict[tuple[str, Append | None, bool], Topic[Any]] = {}
        self._reports = reports(f"session {session!r}", on_dropped)
        self.intake = Intake(
            self._reports,
            when_full,
            most=max_buffer,
            patient=self._route.is_patient,
            values_wait=self._values.write_later is not None,
        )
        self._sender: Sender | None = None
        self._last: Sender | None = None  # kept when it is closed, for the counts
        self._detour: Detour | None = None
        self._asker: Asker | None = None
        self._heartbeats: Heartbeats | None = None
        self._reported_before = 0  # by the heartbeat of the attempt before

    @classmethod
    def from_within_activity(
        cls,
        url: str | None = None,
        token: Token | None = None,
        *,
        session: str | None = None,
        **options: Unpack[PublisherOptions],
    ) -> Self:
        """Return a publisher for the current activity; each attempt fences the ones before.

        The publisher's name consists of the workflow's run and the activity's id; its attempt is the activity's, and
        supersedes the events of earlier ones. In an
        `async def` activity, values are converted and encoded like the worker's client does. In a `def` activity they are
        only converted; pass `data_converter=client.data_converter` there if yours has a codec.

        Args:
            url: As for the constructor.
            token: As for the constructor.
            session: The session's name; the Workflow Id by default.
            options: As for the constructor; each overrides the value from the activity.

        Raises:
            PublisherMisusedError: No workflow scheduled this activity, and no session was given.
            RuntimeError: The caller is not an activity.
        """
        current = activity.described(session)
        chosen = {**current.options, **options}
        if chosen["workflow"] is None:
            chosen["namespace"] = None
        publisher = cls(url, token, **chosen)
        if "publisher" not in options and "attempt" not in options:
            publisher._is_new = current.is_first
        publisher._heartbeats = Heartbeats(current.context, current.heartbeat_details, publisher._progress)
        publisher._reported_before = publisher._heartbeats.acknowledged_before(publisher.identity)
        return publisher

    @overload
    def topic(self, name: str, *, append: Append | None = ..., keyed: bool = ...) -> Topic[Any]: ...
    @overload
    def topic(self, name: str, *, type: type[T], append: Append | None = ..., keyed: bool = ...) -> Topic[T]: ...

    def topic(
        self, name: str, *, type: type[T] | None = None, append: Append | None = None, keyed: bool = False
    ) -> Topic[Any]:
        """Return a handle to publish to one topic.

        Args:
            name: The topic's name.
            type: The type of its values, for type checkers; values are not checked at run time. Each topic has one.
            append: How its messages grow, see `Topic.message`: `text`, `list` or `json-merge`. Without it, they do not.
            keyed: Whether every event must have a key.

        Raises:
            TopicInvalidError: The name is invalid.
            TopicTypeError: The topic has another type in this publisher.
        """
        self._types.bind(name, type)
        known = self._topics.get((name, append, keyed))
        if known is None:
            known = Topic(self.intake, self._values, name, append=append, keyed=keyed)
            self._topics[name, append, keyed] = known
        return known

    @property
    def acknowledged(self) -> int:
        """The number of this attempt's events that are durable in the session."""
        return 0 if self._last is None else self._last.acknowledged

    @property
    def resumed(self) -> int:
        """The number of earlier attempts' events in the session; 0 without `resume`.

        The gateway returns it. Until it is reached, this is the number from the last heartbeat of the attempt before.
        """
        if not self._resume:
            return 0
        earlier = None if self._last is None else self._last.earlier_events
        return self._reported_before if earlier is None else earlier

    async def request(self, reason: str, **asking: Unpack[Asking]) -> AskedRequest:
        """Ask people for input, after all earlier events; its `outcome()` awaits the answer.

        Args:
            reason: Why, such as `approval`; a token names the reasons that it may answer.
            asking: See `Asking`; `id` is the key: asking again with it is the same request.
        """
        await self.flush()
        self._asker = self._asker or Asker(self.url, self._token, self.identity, self._route.retry_seconds)
        return await self._asker.request(reason, asking)

    async def flush(self) -> None:
        """Wait until all events published so far are durable.

        They are durable in the session or, while the gateway is away, in the spool's file or in Temporal, by the option
        `on_unavailable`.

        Raises:
            PublishDroppedError: Events, which are in the error, were not delivered.
        """
        sender = self._require_open()
        self._reports.raise_next()
        await self._flush(sender)
        self._reports.raise_next()

    def heartbeat_every(self, interval: timedelta) -> None:
        """Heartbeat the activity periodically, with this publisher's progress in the details.

        The details are the user's (those of the last `heartbeat`, else those of the attempt before), followed by
        `{"wakeline": {"session", "publisher", "attempt", "acknowledged", "resumed"}}`. A plain `activity.heartbeat(…)`
        overrides both until the next periodic heartbeat.

        Args:
            interval: The time between two heartbeats.

        Raises:
            PublisherMisusedError: It was not made by `from_within_activity`, or is not open.
        """
        self._require_open()
        self._require_activity().start(interval)

    def heartbeat(self, *details: Any) -> None:
        """Heartbeat now with these details, which later heartbeats repeat; see `heartbeat_every`."""
        self._require_activity().beat(*details)

    async def aclose(self) -> None:
        """Make all events durable, then stop; harmless when repeated.

        Raises:
            PublishDroppedError: Events, which are in the error, were not delivered.
        """
        if self._sender is None:
            return
        try:
            for message in list(self.intake.held):
                await message.release()
            await self._flush(self._sender)
        finally:
            await self._stop()
        self._reports.raise_next()

    async def __aenter__(self) -> Self:
        """Open the publisher and fence earlier attempts.

        If the gateway does not answer within 5 s, opening continues in the background.

        Raises:
            AttemptFencedError: A later attempt has been opened.
            RefusedError: The gateway refuses this publisher.
            UnavailableError: The gateway cannot be reached, and `on_unavailable` is `error`.
            PublisherMisusedError: The publisher is open already.
        """
        if self._sender is not None:
            raise PublisherMisusedError("expected a publisher that is not open yet, got an open one: enter it once")
        assumed = _places.enter(self.url, self.identity, 0 if self._is_new else None)
        try:
            connection = shared_connection(self.url, self._token)
            coded = self._values.write_later is not None
            detour = self._detour = self._route.detour(self.identity, connection, self._reports, coded=coded)
            buffer, reports, route = self.intake.buffer, self._reports, self._route
            sender = Sender(self.identity, connection, buffer, reports, route, detour=detour, assumed=assumed)
            self._sender = self._last = self.intake.sender = sender
        except BaseException:
            _places.leave(self.url, self.identity, None)
            raise
        sender.start()
        try:
            await asyncio.wait([sender.first], timeout=min(_FIRST_OPEN_SECONDS, self._route.retry_seconds))
            outcome = sender.first.result() if sender.first.done() else None
            if outcome is not None and not (self._route.is_patient and isinstance(outcome, UnavailableError)):
                raise outcome
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Make all events durable, then stop.

        While an error propagates, this takes at most 5 s and raises nothing; undelivered events are logged.

        Raises:
            PublishDroppedError: Events were not delivered, and no other error propagates.
        """
        if error is None:
            await self.aclose()
            return
        if self._sender is None:
            return
        try:
            async with asyncio.timeout(min(_FAILING_FLUSH_SECONDS, self._route.retry_seconds)):
                await self._sender.flush()
        except TimeoutError:
            self._sender.abandon(UnavailableError("an error ended the block before they could be delivered"))
        finally:
            await self._stop()
        while self._reports.any and (report := self._reports.take()) is not None and report.bodies:
            logger.error("%s", report.message)

    async def _flush(self, sender: Sender) -> None:
        if sender.away is not None and not self._route.is_patient:
            sender.abandon(sender.away, "could not be delivered")
        await sender.flush()

    async def _stop(self) -> None:
        if self._heartbeats is not None:
            self._heartbeats.stop()
        if self._asker is not None:
            await self._asker.aclose()
            self._asker = None
        sender, self._sender, self.intake.sender = self._sender, None, None
        if sender is None:
            return
        try:
            try:
                await sender.close()
            finally:
                if self._detour is not None:
                    await self._detour.close()
        finally:
            left = sender.leave()  # empty, unless the flush before was cancelled
            _places.leave(self.url, self.identity, None if left else sender.sequence)
            self._reports.add(left, "were not sent before it was closed", sender.away if left else None)

    def _progress(self) -> dict[str, Any]:
        its = self.identity
        named = {"session": its.session, "publisher": its.publisher, "attempt": its.attempt}
        return {**named, "acknowledged": self.acknowledged, "resumed": self.resumed}

    def _require_open(self) -> Sender:
        if self._sender is None:
            raise PublisherMisusedError("expected an open publisher, got one outside its block: use `async with`")
        return self._sender

    def _require_activity(self) -> Heartbeats:
        if self._heartbeats is None:
            raise PublisherMisusedError(
                "expected a publisher made by from_within_activity, got another one: only activities heartbeat"
            )
        return self._heartbeats
