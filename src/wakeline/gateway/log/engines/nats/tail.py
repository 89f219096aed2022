"""Follows a stream: every message once, in order and without a gap.

JetStream publishes each new message of the stream again, without a guarantee. A hole in the stream's sequences shows that one
was lost: the messages in between are then read from the stream. A poll each second finds those that were lost at the end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog
from nats.aio.msg import Msg

from wakeline.background import begin, cancel_all
from wakeline.errors import StorageFailedError, UnavailableError
from wakeline.gateway.log.engines.nats.link import Link, RefusedError
from wakeline.gateway.log.engines.nats.scan import last_messages
from wakeline.gateway.log.engines.nats.streams import Stream, StreamInfo
from wakeline.gateway.runtime import supervised
from wakeline.retry import Backoff

_POLL_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 0.05
_START_TRIES: Final = 20
AWAY_SECONDS: Final = 300.0
"""After so long without the stream's leader, messages may have been removed that were never seen."""
_BATCH: Final = 256
_BATCH_BYTES: Final = 1024 * 1024
_log = structlog.get_logger(__name__)


class Tail:
    """Follows one stream.

    Args:
        link: The connection.
        stream: The stream.
        apply: Called with each new message.
        learn: Called with the last message of each subject at the start.
        settle: Called with the sequences of all last messages, and the end of the stream, after a time away: what is not
            among them was removed.

    Attributes:
        name: The stream's name.
        seen: The sequence up to which all messages were applied.
        answers: Whether the stream's leader answered the last time, and could store: it is asked at least once a second.
    """

    def __init__(
        self,
        link: Link,
        stream: Stream,
        apply: Callable[[int, bytes], None],
        learn: Callable[[int, bytes], None],
        settle: Callable[[set[int], int], None],
    ) -> None:
        self.name = stream.name
        self.seen = -1
        self.answers = True
        self._link = link
        self._stream = stream
        self._apply = apply
        self._learn = learn
        self._settle = settle
        self._contact = 0.0
        self._pending: dict[int, bytes] = {}
        self._wanted = 0
        self._behind = asyncio.Event()
        self._moved: asyncio.Future[None] | None = None
        self._checking: asyncio.Task[None] | None = None
        self._next_check: asyncio.Task[None] | None = None
        self._checks: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Learn the last message of every subject, then follow the stream."""
        await self._link.subscribe(f"{self._stream.live}.*", self._received)
        backoff = Backoff(0.1, 1.0)
        while True:
            try:
                await self._read_all()
                break
            except UnavailableError:
                if backoff.failures >= _START_TRIES:
                    raise
            await backoff.wait()  # the stream elects a leader
        self._tasks = [
            supervised(f"following {self._stream.name}", self._catch_up),
            supervised(f"polling {self._stream.name}", self._poll),
        ]

    async def _read_all(self) -> None:
        """Learn the last message of every subject, without reporting them."""
        end = await self.end()
        async for seq, payload in last_messages(self._link, self._stream):
            self._pass(self._learn, seq, payload)
        self._move(end)
        self._go_on()

    async def _settle_all(self) -> None:
        """Forget the subjects whose messages were removed while this gateway was away."""
        end = await self.end()
        self._want(end)
        await self._until(end)
        self._settle({seq async for seq, _ in last_messages(self._link, self._stream)}, end)

    async def stop(self) -> None:
        """Stop following."""
        await cancel_all(*self._tasks, *self._checks)

    async def end(self) -> int:
        """Return the sequence of the stream's last message, as its leader has it.

        Raises:
            StorageFailedError: The leader does not answer.
        """
        try:
            info = await StreamInfo.of(self._link, self._stream)
        except RefusedError as error:
            self.answers = False
            raise self._link.failed(error) from error
        except StorageFailedError:
            self.answers = False
            raise
        self._contact, self.answers = time.monotonic(), info.cluster is None or info.cluster.can_store
        return info.state.last_seq

    async def fresh(self) -> None:
        """Wait until everything was applied that had been stored before this call.

        A check that has begun may have asked the leader before; the next one serves all who wait for it.
        """
        if self._next_check is None:
            self._next_check = begin(self._check(self._checking), self._checks)
        await asyncio.shield(self._next_check)

    async def _check(self, before: asyncio.Task[None] | None) -> None:
        try:
            if before is not None:
                await asyncio.wait([before])
            self._checking, self._next_check = self._next_check, None
            await self.reach(await self.end())
        except asyncio.CancelledError:  # by `stop`: those who wait were not cancelled
            self._next_check = None
            raise StorageFailedError("expected an open store, it is closed") from None

    async def reach(self, seq: int) -> None:
        """Wait until all messages up to `seq` are applied."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._until(seq)
                return
        self._want(seq)  # the message that was published again is lost, or late
        await self._until(seq)

    async def _until(self, seq: int) -> None:
        while self.seen < seq:
            if self._moved is None or self._moved.done():
                self._moved = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._moved)

    async def _received(self, msg: Msg) -> None:
        assert msg.headers is not None
        seq = int(msg.headers["Nats-Sequence"])
        if seq == self.seen + 1:
            self._pass(self._apply, seq, msg.data)
            self._move(seq)
            if self._pending:
                self._go_on()
        elif seq > self.seen or self.seen < 0:
            self._pending[seq] = msg.data
            if self.seen >= 0:
                self._want(seq - 1)

    def _go_on(self) -> None:
        """Apply the received messages that follow without a gap."""
        for seq in sorted(self._pending):
            if seq <= self.seen:
                del self._pending[seq]
            elif seq == self.seen + 1:
                self._pass(self._apply, seq, self._pending.pop(seq))
                self._move(seq)
            else:
                self._want(seq - 1)
                return

    def _pass(self, apply: Callable[[int, bytes], None], seq: int, payload: bytes) -> None:
        try:
            apply(seq, payload)
        except Exception:  # noqa: BLE001 - a message of another program must not stop the others
            _log.exception("a message could not be applied", stream=self._stream.name, sequence=seq)

    def _move(self, seq: int) -> None:
        self.seen = seq
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)

    def _want(self, seq: int) -> None:
        self._wanted = max(self._wanted, seq)
        if self._wanted > self.seen:
            self._behind.set()

    async def _catch_up(self) -> None:
        while True:
            await self._behind.wait()
            self._behind.clear()
            while self.seen < self._wanted:
                try:
                    await self._read()
                except UnavailableError:
                    await asyncio.sleep(_PATIENCE_SECONDS)

    async def _read(self) -> None:
        """Read on after what was seen; where there is nothing more, all of it was removed."""
        before = self.seen
        found = await self._link.batch(self._stream.name, seq=before + 1, batch=_BATCH, max_bytes=_BATCH_BYTES)
        if not found:
            end = await self.end()
            one = await self._link.get(self._stream.name, seq=before + 1, next_by_subj=f"{self._stream.subjects}.*")
            found = [one] if one is not None else []
            if one is None and self.seen == before < end:
                self._move(end)
        for seq, payload in found:
            if seq > self.seen:
                self._pass(self._apply, seq, payload)
                self._move(seq)
        self._go_on()

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            with suppress(UnavailableError):
                if time.monotonic() - self._contact > AWAY_SECONDS:
                    await self._settle_all()
                end = await self.end()
                await asyncio.sleep(_PATIENCE_SECONDS)
                self._want(end)
