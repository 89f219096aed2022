"""`SessionPublisher`: from an activity or a service straight into a session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, Unpack, overload
from uuid import uuid4

from wakeline.buffer import WhenFull
from wakeline.client.http import Token
from wakeline.errors import UnavailableError
from wakeline.events import check_session_name
from wakeline.logs import get_logger
from wakeline.publisher import activity
from wakeline.publisher.connection import Connection
from wakeline.publisher.detour import Detour
from wakeline.publisher.errors import PublishDroppedError, PublisherMisusedError, reports
from wakeline.publisher.fallback import Fallback
from wakeline.publisher.frames import Identity
from wakeline.publisher.heartbeat import Heartbeats
from wakeline.publisher.intake import Intake
from wakeline.publisher.options import OnUnavailable, PublisherOptions, check_options, gateway_token, gateway_url
from wakeline.publisher.places import Places
from wakeline.publisher.pool import shared_connection
from wakeline.publisher.sender import Sender
from wakeline.publisher.spool import Spool
from wakeline.publisher.spooling import Spooling
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
    """Publishes to one session: durable in about a millisecond, each event once, in order.

        async with SessionPublisher.from_within_activity() as session:
            answer = session.topic("delta", type=TextDelta)
            async for token in model():
                await answer.publish(TextDelta(token))

    The first event goes at once; what gathers while it is under way is the next batch. Leaving the block makes everything
    durable. All publishers of an event loop share one connection.

    Args:
        url: Where the gateway is; `WAKELINE_URL` in the environment by default, else `http://127.0.0.1:7777`.
        token: Who publishes; `WAKELINE_TOKEN` by default. A function, plain or async, is asked at first and whenever the
            last one has expired.
        session: The session; it begins with its first event.
        publisher: A name for this source of events, 1 to 256 visible ASCII characters; by default one that nobody else has.
            One publisher of a name is open at a time.
        attempt: Which attempt of the publisher this is; a later one shuts earlier ones out.
        run: Whose output it is: the workflow's run.
        activity: The activity.
        workflow: The Workflow Id of the workflow that it comes from: the gateway follows it into the session, devices or not,
            if the token may `manage` the session, or one of the two names the other (PROTOCOL.md §3).
        namespace: That workflow's namespace, where it is not the gateway's own.
        supersede: Whether what earlier attempts published stops to count; by default yes, where there is an `activity`.
        resume: Go on where the last attempt stopped: supersede nothing, `resumed` tells how many events there are.
        linger: How long a batch that is not full waits for more. Not at all by default.
        max_batch: Events in one append, at most.
        max_buffer: Events that may wait to be sent; also no more than 64 MiB of them.
        when_full: What `publish` does when no more may wait. `block`: waits. `error`: raises `BufferFullError`.
            `drop_oldest`: what has waited longest is dropped, and reported. `coalesce`: an event takes the place of one of
            the same topic and key that waits, full or not; without one it waits for room.
        max_retry_duration: How long delivery is tried before events are given up, and reported.
        on_unavailable: What happens while the gateway cannot be reached. `block`: events wait. `error`: `publish` and
            `flush` raise at once. `spool`: events are kept in the file `spool`, durable when `flush` returns, and sent when it
            is back. `workflow`: they go through the workflow's own stream, if the workflow hosts one.
        spool: The file, with `on_unavailable="spool"`.
        data_converter: Converts values, and encodes them where it has a codec; by default plain JSON. `temporalio`'s own class.
        on_dropped: Is told of events that were not delivered, in place of the next publish, flush or close raising it.
        temporal_client: Signals the workflow, with `on_unavailable="workflow"`; without `workflow`, the one that the session is
            named after.

    Raises:
        RequestInvalidError: An option makes no sense.
        SessionNameInvalidError: No session can have this name.
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
        check_options(
            publisher=publisher,
            attempt=attempt,
            run=run,
            activity=activity,
            workflow=workflow,
            namespace=namespace,
            linger=linger,
            max_batch=max_batch,
            max_buffer=max_buffer,
            when_full=when_full,
            max_retry_duration=max_retry_duration,
            on_unavailable=on_unavailable,
            spool=spool,
            temporal_client=temporal_client,
        )
        self.url = gateway_url(url)
        self._token = gateway_token(token)
        self.identity = Identity(
            session=check_session_name(session),
            publisher=publisher or uuid4().hex,
            attempt=attempt,
            run=run,
            activity=activity,
            workflow=workflow,
            namespace=namespace,
            supersede=False if resume else supersede,
        )
        # Where nobody can have published before, the attempt's beginning is known without asking.
        self._is_new = publisher is None
        self._resume = resume
        self._linger = linger.total_seconds()
        self._max_batch = max_batch
        self._max_retry = max_retry_duration.total_seconds()
        self._on_unavailable = on_unavailable
        self._spool = spool
        self._temporal = temporal_client
        patient = on_unavailable != "error"
        self._values = Values(data_converter, self._max_retry if patient else 0.0)
        self._types = TopicTypes()
        self._topics: dict[tuple[str, Append | None, bool], Topic[Any]] = {}
        self._reports = reports(f"session {session!r}", on_dropped)
        self.intake = Intake(
            self._reports, when_full, most=max_buffer, patient=patient, values_wait=self._values.write_later is not None
        )
        self._sender: Sender | None = None
        self._last: Sender | None = None  # also when it is closed
        self._detour: Detour | None = None
        self._heartbeats: Heartbeats | None = None
        self._heard_before = 0

    @classmethod
    def from_within_activity(
        cls,
        url: str | None = None,
        token: Token | None = None,
        *,
        session: str | None = None,
        **options: Unpack[PublisherOptions],
    ) -> Self:
        """A publisher for the current activity: its attempts supersede each other, and a zombie is shut out.

        The publisher's name is made of the workflow's run and the activity's id, its attempt is the activity's. In an `async
        def` activity values are converted, and encoded, as the worker's client does; in a `def` activity only converted, so
        pass `data_converter=client.data_converter` there if yours has a codec.

        Args:
            url: As for the constructor.
            token: As for the constructor.
            session: The session; the Workflow Id by default.
            options: As for the constructor, and any of them takes the place of what the activity says.

        Raises:
            PublisherMisusedError: No workflow scheduled this activity, and no session was given.
            RuntimeError: This is not an activity.
        """
        told = activity.described(session)
        chosen = {**told.options, **options}
        if chosen["workflow"] is None:
            chosen["namespace"] = None
        publisher = cls(url, token, **chosen)
        if "publisher" not in options and "attempt" not in options:
            publisher._is_new = told.is_first
        publisher._heartbeats = Heartbeats(told.context, told.heartbeat_details, publisher._progress)
        publisher._heard_before = publisher._heartbeats.acknowledged_before(publisher.identity)
        return publisher

    @overload
    def topic(self, name: str, *, append: Append | None = ..., keyed: bool = ...) -> Topic[Any]: ...
    @overload
    def topic(self, name: str, *, type: type[T], append: Append | None = ..., keyed: bool = ...) -> Topic[T]: ...

    def topic(
        self, name: str, *, type: type[T] | None = None, append: Append | None = None, keyed: bool = False
    ) -> Topic[Any]:
        """A handle to publish to one topic.

        Args:
            name: The topic.
            type: The type of its values, one for a topic; for type checkers, nothing is checked at run time.
            append: Its events are pieces of messages that grow, see `Topic.message`: `text`, `list` or `json-merge`.
            keyed: Every event must have a key.

        Raises:
            TopicInvalidError: No topic can have this name.
            TopicTypeError: The topic has another type here.
        """
        self._types.bind(name, type)
        known = self._topics.get((name, append, keyed))
        if known is None:
            known = Topic(self.intake, self._values, name, append=append, keyed=keyed)
            self._topics[name, append, keyed] = known
        return known

    @property
    def acknowledged(self) -> int:
        """How many events of this attempt the session has, durably."""
        return 0 if self._last is None else self._last.acknowledged

    @property
    def resumed(self) -> int:
        """How many events of earlier attempts count; 0 unless `resume` was asked for.

        As the gateway says; where it cannot be asked, as the last heartbeat of the attempt before said.
        """
        if not self._resume:
            return 0
        earlier = None if self._last is None else self._last.earlier_events
        return self._heard_before if earlier is None else earlier

    async def flush(self) -> None:
        """Wait until everything that was published until now is durable.

        That is: in the session; or, while the gateway is away, in the spool's file or taken by Temporal, if that was chosen.

        Raises:
            PublishDroppedError: Events were not delivered, and are in the error.
        """
        sender = self._require_open()
        self._reports.raise_next()
        await self._flush(sender)
        self._reports.raise_next()

    def heartbeat_every(self, interval: timedelta) -> None:
        """Heartbeat the activity from now on, with how far this publisher has come; made by `from_within_activity` only.

        The details are those of the user (what `heartbeat` was given last, else those of the attempt before), and after them
        `{"wakeline": {"session", "publisher", "attempt", "acknowledged", "resumed"}}`. A plain `activity.heartbeat(…)` beside
        it takes the place of both until the next one.

        Args:
            interval: How often.

        Raises:
            PublisherMisusedError: It was not made by `from_within_activity`, or is not open.
        """
        self._require_open()
        self._require_activity().start(interval)

    def heartbeat(self, *details: Any) -> None:
        """Heartbeat now, with details of yours, which stay until others are given. Further as `heartbeat_every`."""
        self._require_activity().beat(*details)

    async def aclose(self) -> None:
        """Make everything durable, then stop. Doing it twice is harmless.

        Raises:
            PublishDroppedError: Events were not delivered, and are in the error.
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
        """Begin, and shut earlier attempts out; if the gateway is away, it goes on in the background.

        Raises:
            AttemptFencedError: A later attempt has begun.
            RefusedError: The gateway refuses this publisher.
            UnavailableError: It cannot be reached, and `on_unavailable` is `error`.
        """
        if self._sender is not None:
            raise PublisherMisusedError("expected a publisher that is not open yet, this one is")
        assumed = _places.enter(self.url, self.identity, 0 if self._is_new else None)
        try:
            connection = shared_connection(self.url, self._token)
            detour = self._detour = self._make_detour(connection)
            sender = self._sender = self._last = self.intake.sender = Sender(
                self.identity,
                connection,
                self.intake.buffer,
                self._reports,
                max_batch=self._max_batch,
                linger=self._linger,
                max_retry=self._max_retry,
                patient=self._on_unavailable != "error",
                detour=detour,
                assumed=assumed,
            )
        except BaseException:
            _places.leave(self.url, self.identity, None)
            raise
        sender.start()
        try:
            await asyncio.wait([sender.first], timeout=min(_FIRST_OPEN_SECONDS, self._max_retry))
            outcome = sender.first.result() if sender.first.done() else None
            if outcome is not None and (self._on_unavailable == "error" or not isinstance(outcome, UnavailableError)):
                raise outcome
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Make everything durable, then stop; where an error is on its way, not for long, and without hiding it.

        Raises:
            PublishDroppedError: Events were not delivered, and no other error is on its way.
        """
        if error is None:
            await self.aclose()
            return
        if self._sender is None:
            return
        try:
            async with asyncio.timeout(min(_FAILING_FLUSH_SECONDS, self._max_retry)):
                await self._sender.flush()
        except TimeoutError:
            self._sender.give_up(UnavailableError("there was no time left to deliver them"))
        finally:
            await self._stop()
        while self._reports.any and (report := self._reports.take()) is not None and report.bodies:
            logger.error("%s", report.message)

    async def _flush(self, sender: Sender) -> None:
        if sender.away is not None and self._on_unavailable == "error":
            sender.give_up(sender.away, "could not be delivered")
        await sender.flush()

    async def _stop(self) -> None:
        if self._heartbeats is not None:
            self._heartbeats.stop()
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
            left = sender.leave()  # nothing, unless somebody would not wait for it
            _places.leave(self.url, self.identity, None if left else sender.sequence)
            self._reports.add(left, "were not sent before it was closed")

    def _make_detour(self, connection: Connection) -> Detour | None:
        if self._on_unavailable == "spool":
            assert self._spool is not None
            return Spooling(Spool.at(Path(self._spool)), self.identity, connection, self._reports)
        if self._on_unavailable == "workflow":
            assert self._temporal is not None
            workflow_id = self.identity.workflow or self.identity.session
            coded = self._values.write_later is not None
            return Fallback(self._temporal, workflow_id, self.identity, timedelta(seconds=self._max_retry), coded=coded)
        return None

    def _progress(self) -> dict[str, Any]:
        identity = self.identity
        return {
            "session": identity.session,
            "publisher": identity.publisher,
            "attempt": identity.attempt,
            "acknowledged": self.acknowledged,
            "resumed": self.resumed,
        }

    def _require_open(self) -> Sender:
        if self._sender is None:
            raise PublisherMisusedError("expected an open publisher: enter it by `async with` first")
        return self._sender

    def _require_activity(self) -> Heartbeats:
        if self._heartbeats is None:
            raise PublisherMisusedError("expected a publisher made by from_within_activity: only activities heartbeat")
        return self._heartbeats
