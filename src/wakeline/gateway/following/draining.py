"""What a Temporal run that is over still has to say: its end, or what its chain goes on as, is told after that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from temporalio.service import RPCError

from wakeline.background import cancel_all
from wakeline.errors import SessionClosedError, UnavailableError
from wakeline.gateway.following.copying.copy import StreamCopy
from wakeline.gateway.following.copying.reader import (
    EncodedError,
    NeverBegunError,
    NoStreamError,
    NotNowError,
    StreamReader,
    TooLargeError,
)
from wakeline.gateway.following.following import Following
from wakeline.gateway.following.telling import RETRY_SECONDS
from wakeline.gateway.following.watching.endings import UNKNOWN_TIMES, Ending, is_forgotten, is_over
from wakeline.gateway.sessions import Unread


class Drainer:
    """Reads one chain's runs to their ends.

    Args:
        parts: What followers share.
        copy: The copy of the chain's stream.
        look: Tells what a run of the chain is doing, until cancelled.
    """

    def __init__(self, parts: Following, copy: StreamCopy, look: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        self._parts = parts
        self._copy = copy
        self._look = look
        self._unheard = False  # what the run before said could not be read in time

    async def drain(self, reader: StreamReader, ending: Ending, *, read_whole: bool = False) -> bool:
        """Read a closed run's remaining events; return False if they could not be read.

        Args:
            reader: Reads its stream.
            ending: How it ended.
            read_whole: All of it was read before the end was known.
        """
        if ending.status == "unknown":
            return False  # nobody can be asked for it
        goes_on = ending.status is None and ending.follows_by != "reset"
        # After one that nobody could read in time the next is not waited for as long.
        patience = RETRY_SECONDS if goes_on and self._unheard else self._parts.settings.drain_grace
        drained = True if read_whole else await self._read_rest(reader, patience)
        if drained is None and goes_on:
            drained = await self._wait_for_worker(reader, ending, max(patience, RETRY_SECONDS))
        self._unheard = drained is None
        if drained is True and (unread := self._copy.run.unread):
            # A crash may have left it noted as to be read later.
            left = tuple([other for other in unread if other.run_id != self._copy.run.run_id])
            if left != unread:
                await self._copy.change(unread=left)
        return drained is True

    async def _read_rest(self, reader: StreamReader, seconds: float) -> bool | None:
        """Read a closed run's stream to its end; False if it cannot be read any more, None if nobody answered in time."""
        loop, connection = asyncio.get_running_loop(), self._parts.connection
        deadline = loop.time() + seconds
        while True:
            began = loop.time()
            await connection.until_calm()  # no worker can help that Temporal is busy
            deadline += loop.time() - began
            try:
                async with asyncio.timeout_at(deadline):
                    await self._copy.read(reader, closed=True)
                    return True
            except NeverBegunError:
                # It has said nothing. What it was given of another's, it can pass on to nobody.
                return self._copy.run.stream == self._copy.run.run_id or self._copy.run.given_whole
            except NoStreamError:
                return not reader.by_update
            except SessionClosedError:
                return False
            except (NotNowError, UnavailableError, TimeoutError):
                if loop.time() + RETRY_SECONDS > deadline and connection.calm():
                    return None
                await asyncio.sleep(RETRY_SECONDS)

    async def _wait_for_worker(self, reader: StreamReader, ending: Ending, patience: float) -> bool | None:
        """Wait for who can tell what a run said before its chain went on: that comes before what the next one says.

        What the chain's latest run is doing is told meanwhile. None if a worker is there that cannot tell it, or if the chain
        has an end to be told, which is waited for no longer than any end.
        """
        parts, absent, latest = self._parts, 0, ""
        looking: asyncio.Task[None] | None = None
        try:
            while True:
                try:
                    ended, now = await is_over(parts.connection.client, self._copy.run)
                    absent = 0
                except RPCError as error:
                    absent = absent + 1 if is_forgotten(error) else 0
                    ended, now = absent >= UNKNOWN_TIMES, latest or ending.next_run_id
                if ended:
                    await self._leave_unread(ending)
                    return None
                if await self._answers(now):
                    return await self._read_rest(reader, patience)
                if now != latest:
                    await cancel_all(looking)
                    latest, looking = now, asyncio.create_task(self._look(now))
                drained = await self._read_rest(reader, patience)
                if drained is not None:
                    return drained
        finally:
            await cancel_all(looking)

    async def _answers(self, run_id: str) -> bool:
        """Whether a worker is there for a run."""
        try:
            await StreamReader(self._parts.connection, self._copy.run.workflow_id, run_id).read(0, closed=True)
        except NeverBegunError:
            return False  # no worker has taken a task of it yet: the server says so, and not a worker
        except (NoStreamError, TooLargeError, EncodedError):
            return True
        except NotNowError:
            return False
        return True

    async def _leave_unread(self, ending: Ending) -> None:
        """Note that what this Temporal run said is to be read when a worker is back: its chain has an end to be told now."""
        run = self._copy.run
        # What the next run was given, that one tells; and once its stream has been read further this one's would begin anew.
        if ending.carries is False and ending.given <= self._copy.offset:
            unread = Unread(run.run_id, run.stream, run.stream_attempt)
            await self._copy.change(unread=(*[other for other in run.unread if other != unread], unread))
