"""Requests to JetStream: each answer is certain, or reported as unknown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from itertools import count
from typing import Any, Final

import msgspec
import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from wakeline.errors import StorageFailedError, StorageFullError, WakelineError
from wakeline.gateway.log.engines.nats.client import LastingClient
from wakeline.gateway.log.engines.nats.messages import Stored
from wakeline.gateway.log.engines.nats.target import Target
from wakeline.gateway.runtime import StoreOutage
from wakeline.retry import Backoff

CALL_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 5.0
_UNKNOWN_SECONDS: Final = 20.0
_AWAY_SECONDS: Final = 3.0
_SILENT_SECONDS: Final = 8.0
_UNAVAILABLE_CODE: Final = 503
_WRONG_LAST: Final = (10071, 10164)
_REPLICAS: Final = 3
_IN_PROCESS: Final = 10158
_FULL: Final = (10002, 10023, 10047, 10077)
TROUBLE_SECONDS: Final = 10.0
"""The seconds for which NATS counts as full after it has refused a message, and a stream as silent after it has not answered."""

_NO_MESSAGE: Final = 10037
_ENDLESS: Final = 1_000_000_000
_END_STATUS: Final = ("204", "404", "408", "409")  # end of the batch, no message, no more now, a limit of bytes
UNAVAILABLE: Final = (nats.errors.Error, OSError, TimeoutError)
"""The errors of a request that nobody answers."""


class Failure(msgspec.Struct):
    """An error in an answer of JetStream."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class RefusedError(Exception):
    """JetStream refused a request.

    Args:
        failure: Its answer.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.description)
        self.failure = failure


class _NotSentError(ConnectionError):
    """A request that was not sent: it has certainly had no effect."""


_KINDS: Final[tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...]] = (
    (RefusedError, "it refused a request"),
    (nats.errors.NoRespondersError, "a stream has no leader"),
    (TimeoutError, "no answer in time"),
    ((OSError, nats.errors.ConnectionClosedError), "no connection"),
)
"""The meaning of errors, for those who do not know the names of nats-py's."""


class _Ack(msgspec.Struct):
    seq: int = 0
    error: Failure | None = None


class _Got(msgspec.Struct):
    seq: int
    data: bytes = b""


class _GetAnswer(msgspec.Struct):
    message: _Got | None = None
    error: Failure | None = None


class _ErrorAnswer(msgspec.Struct):
    error: Failure | None = None


class Link:
    """The connection of a gateway.

    Args:
        target: The servers.

    Attributes:
        client: The connection.
        outage: Logs the outages of the servers.
        is_watched: Whether a gateway uses the store, and outages are logged: while it opens, errors are expected.
    """

    def __init__(self, target: Target) -> None:
        self.client = LastingClient()
        self._target = target
        self._inbox = ""
        self.outage = StoreOutage(target.name)
        self.is_watched = False
        self._answered_at = time.monotonic()
        self._full_at = -TROUBLE_SECONDS
        self._unanswered: dict[str, float] = {}  # by the stream: when a message for it was last left without an answer
        self._tokens = count(1)
        self._waiting: dict[str, _Waiting] = {}

    async def open(self) -> None:
        """Connect.

        Raises:
            EngineRefusedError: The servers cannot be used.
        """
        try:
            await self._target.connect(self.client, disconnected_cb=self._disconnected)
        except BaseException:
            await self.close()
            raise
        self._inbox = self.client.new_inbox()
        await self.subscribe(f"{self._inbox}.*", self._answered)

    def most_replicas(self, nodes: int) -> int:
        """Return how many replicas a stream gets in a cluster of at least so many known nodes."""
        if not nodes and self.client._server_info.get("cluster"):  # nats-py has no public name for it
            nodes = _REPLICAS
        return min(max(nodes, len(self._target.servers), 1), _REPLICAS)

    @property
    def is_full(self) -> bool:
        """Whether JetStream has refused a message for want of space a moment ago."""
        return time.monotonic() - self._full_at < TROUBLE_SECONDS

    def stores(self, stream: str) -> bool:
        """Return whether no message for a stream was left without an answer a moment ago."""
        return time.monotonic() - self._unanswered.get(stream, -TROUBLE_SECONDS) >= TROUBLE_SECONDS

    @property
    def server_name(self) -> str:
        """The name of the server that this connection reaches."""
        return str(self.client._server_info.get("server_name", ""))  # nats-py has no public name for it

    async def close(self) -> None:
        """Close the connection."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.client.close()
        except TimeoutError:  # the servers do not read any more
            self.client.abort()

    async def subscribe(self, subject: str, call: Any) -> Subscription:
        """Call a coroutine function with each message of a subject."""
        return await self.client.subscribe(subject, cb=call, pending_bytes_limit=0)

    async def _answered(self, msg: Msg) -> None:
        waiting = self._waiting.get(msg.subject[len(self._inbox) + 1 :])
        if waiting is not None:
            waiting.receive(msg)

    async def pull(self, subject: str, request: bytes, most: int) -> list[Msg]:
        """Return the messages that a consumer delivers: they keep their own subjects; see `call`."""
        inbox = self.client.new_inbox()
        name = inbox.rpartition(".")[2]
        waiting = self._waiting[name] = _Waiting(most)

        async def receive(msg: Msg) -> None:
            waiting.receive(msg)

        delivered = await self.subscribe(inbox, receive)
        try:
            await self.client.publish(subject, request, reply=inbox)
            async with asyncio.timeout(CALL_SECONDS):
                return await waiting.future
        finally:
            del self._waiting[name]
            await delivered.unsubscribe()

    async def _disconnected(self) -> None:
        for waiting in self._waiting.values():
            waiting.fail(ConnectionError("the connection was lost"))

    async def call(
        self, subject: str, payload: bytes = b"", headers: Mapping[str, str] | None = None, *, most: int = 0
    ) -> list[Msg]:
        """Send a request, and return its answer.

        Args:
            subject: The subject.
            payload: The request.
            headers: Its headers.
            most: The most messages of an answer that ends with a status; 0 for an answer of one message.

        Raises:
            nats.errors.Error: Nobody answers.
            OSError: The connection is lost.
            TimeoutError: No answer arrived in time.
        """
        if not self.client.is_connected:
            raise _NotSentError("there is no connection")
        name = str(next(self._tokens))
        waiting = self._waiting[name] = _Waiting(most)
        try:
            given = dict(headers) if headers is not None else None
            await self.client.publish(subject, payload, reply=f"{self._inbox}.{name}", headers=given)
            async with asyncio.timeout(CALL_SECONDS):
                answer = await waiting.future
        except (TimeoutError, nats.errors.NoRespondersError):
            await self._try_another()
            raise
        finally:
            del self._waiting[name]
        self._answered_at = time.monotonic()
        return answer

    async def _try_another(self) -> None:
        """Connect to another server if this one is silent: it may be cut off from the others."""
        now = time.monotonic()
        if now - self._answered_at > _SILENT_SECONDS:
            self._answered_at = now
            await self.client.force_reconnect()

    async def api(self, name: str, request: Mapping[str, Any] | None = None) -> bytes:
        """Return the answer of JetStream's API.

        Raises:
            RefusedError: It refuses the request.
            StorageFailedError: It does not answer.
        """
        try:
            body = msgspec.json.encode(request) if request is not None else b""
            answer: bytes = (await self.call(f"$JS.API.{name}", body))[0].data
            error = msgspec.json.decode(answer, type=_ErrorAnswer).error
        except (*UNAVAILABLE, msgspec.MsgspecError) as failure:
            raise self.failed(failure) from failure
        if error is not None:
            raise RefusedError(error)
        return answer

    def failed(self, error: BaseException) -> StorageFailedError:
        """Return the error for callers of a request that failed; log a refusal.

        Anybody may read this error, at `/readyz` even without a token. So only the log names the servers.
        """
        kind = next((words for kinds, words in _KINDS if isinstance(error, kinds)), "an unexpected answer")
        # `HealthLog` logs the failures that last: a stream that elects a leader answers again in a moment.
        if self.is_watched and isinstance(error, RefusedError) and error.failure.code != _UNAVAILABLE_CODE:
            self.outage.refused(kind, str(error))
        return StorageFailedError.of_outage(f"NATS failed: {kind}")

    async def get(self, stream: str, **request: Any) -> Stored | None:
        """Return one message as the stream's leader has it; None if there is none.

        Raises:
            StorageFailedError: The leader does not answer.
        """
        try:
            body = msgspec.json.encode(request)
            answer = msgspec.json.decode(
                (await self.call(f"$JS.API.STREAM.MSG.GET.{stream}", body))[0].data, type=_GetAnswer
            )
        except (*UNAVAILABLE, msgspec.MsgspecError) as failure:
            raise self.failed(failure) from failure
        if answer.message is not None:
            return answer.message.seq, answer.message.data
        if answer.error is None or answer.error.err_code != _NO_MESSAGE:
            raise self.failed(RefusedError(answer.error or Failure()))
        return None

    async def last(self, stream: str, subject: str) -> Stored | None:
        """Return the last message of a subject as the stream's leader has it; None if there is none."""
        return await self.get(stream, last_by_subj=subject)

    async def batch(self, stream: str, **request: Any) -> list[Stored]:
        """Return messages from any replica of the stream, which may be behind its leader."""
        try:
            answers = await self.call(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(request), most=_ENDLESS)
        except UNAVAILABLE as failure:
            raise self.failed(failure) from failure
        return [(int(msg.headers["Nats-Sequence"]), msg.data) for msg in answers if msg.headers is not None]

    async def append(self, stream: str, subject: str, payload: bytes, *, id: str, prev: int) -> int | None:
        """Append a message if the subject's last one is still at `prev`; return when it is durable.

        Args:
            stream: The stream.
            subject: The subject.
            payload: The message, which begins with its id where `_successor` finds it.
            id: Its own id.
            prev: The sequence of the subject's last message; 0 if it has none.

        Returns:
            The message's sequence; None if it was certainly not stored, because another one came first.

        Raises:
            StorageFullError: There is no space; it was not stored.
            StorageFailedError: It is unknown whether it was stored, or will be.
        """
        headers = {"Nats-Msg-Id": id, "Nats-Expected-Last-Subject-Sequence": str(prev)}
        began, backoff, unknown = time.monotonic(), Backoff(0.02, 1.0), False
        trouble: BaseException = TimeoutError()
        while True:
            try:
                ack = msgspec.json.decode((await self.call(subject, payload, headers))[0].data, type=_Ack)
                if ack.error is None and ack.seq:
                    self._unanswered.pop(stream, None)
                    return ack.seq
                failure = ack.error or Failure()
                trouble = RefusedError(failure)
                if failure.err_code in _WRONG_LAST and not unknown:
                    return None
                if failure.err_code in _FULL and not unknown:
                    self._full_at = time.monotonic()
                    raise StorageFullError(
                        "NATS has no space",
                        hint="Raise max_file_store or the limits of its account, then retry; the gateway recovers"
                        " automatically.",
                    )
            except _NotSentError as error:
                trouble, failure = error, Failure()
            except (*UNAVAILABLE, msgspec.MsgspecError) as error:
                trouble, failure, unknown = error, Failure(), True
            if failure.err_code in _WRONG_LAST:
                # An earlier attempt may have been stored, or may still be on its way to the other replicas.
                decided, seq = await self._outcome(stream, subject, id, prev)
                if decided:
                    return seq
            elif failure.err_code == _IN_PROCESS:
                unknown = True
            if time.monotonic() - began > (_UNKNOWN_SECONDS if unknown else _AWAY_SECONDS):
                self._unanswered[stream] = time.monotonic()
                raise self.failed(trouble)
            await backoff.wait()

    async def _outcome(self, stream: str, subject: str, id: str, prev: int) -> tuple[bool, int | None]:
        """Return whether the outcome of a write is known, and its sequence if it was stored.

        Raises:
            StorageFailedError: The message after it was removed since.
        """
        try:
            found = await self.get(stream, seq=prev + 1, next_by_subj=subject)
        except WakelineError:
            return False, None
        if found is None:
            return False, None
        seq, payload = found
        its_id, its_prev = identity(payload)
        if its_id == id:
            return True, seq
        if its_prev != prev:
            raise StorageFailedError("NATS has removed the messages that would show the outcome of a write")
        return True, None


class _Waiting:
    """A request whose answer is awaited."""

    def __init__(self, most: int) -> None:
        self.future: asyncio.Future[list[Msg]] = asyncio.get_running_loop().create_future()
        self._most = most
        self._messages: list[Msg] = []

    def receive(self, msg: Msg) -> None:
        if self.future.done():
            return
        status = msg.headers.get("Status") if msg.headers is not None else None
        if status == "503":
            self.fail(nats.errors.NoRespondersError())
        elif not self._most:
            self.future.set_result([msg])
        elif status is None:
            self._messages.append(msg)
            if len(self._messages) == self._most:
                self.future.set_result(self._messages)
        elif status in _END_STATUS:
            self.future.set_result(self._messages)
        else:
            self.fail(nats.errors.Error(f"unexpected status {status}"))

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


def identity(payload: bytes) -> tuple[str, int]:
    """Return the id of a message of ours, and the sequence of the one before it."""
    fields = msgspec.msgpack.decode(payload)
    if isinstance(fields[0], list):
        fields = fields[0]
    return str(fields[1]), int(fields[2])
