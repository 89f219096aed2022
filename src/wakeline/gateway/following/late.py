"""What an ended run still had to say: its end was told because no worker was there, and one has come back."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
import structlog
from temporalio.service import RPCError

from wakeline.errors import AttemptFencedError, EpochChangedError, SessionClosedError, UnavailableError
from wakeline.events import RUN_DRAINED
from wakeline.gateway.following.copying.copy import StreamCopy
from wakeline.gateway.following.copying.reader import NeverBegunError, NoStreamError, NotNowError, StreamReader
from wakeline.gateway.following.following import Following
from wakeline.gateway.following.telling import RETRY_SECONDS, Teller
from wakeline.gateway.following.watching.endings import RPC_TIMEOUT, UNKNOWN_TIMES, is_forgotten
from wakeline.gateway.sessions import Run, Unread

_SOONEST: Final = 2.0
_RARELY: Final = 60.0
_log = structlog.get_logger(__name__)


class Late:
    """Reads what one ended run owes its session.

    Args:
        session: Where it goes.
        run: The run.
        parts: What followers share.
    """

    def __init__(self, session: str, run: Run, parts: Following) -> None:
        self._parts = parts
        self._teller = Teller(session, run.run, parts.accept)
        self._copy = StreamCopy(run, self._teller, parts.accept, parts.runs)
        self._reading = asyncio.Lock()
        self._owed = True
        self._absent = 0  # so often in a row Temporal had no such run

    async def wait(self) -> None:
        """Try until somebody answers, or until nobody can any more."""
        pause = _SOONEST
        while self._owed:
            # Others are waited for first, so that a last chance which comes meanwhile need not wait for them.
            async with self._parts.late_reads, self._reading:
                if self._owed:  # it may have had its last chance meanwhile
                    await self._try()
            if self._owed:
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _RARELY)

    async def last_chance(self) -> None:
        """Try for as long as is waited at an end. After this nothing of the run is added: a later one has the word."""
        async with self._reading:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + self._parts.settings.drain_grace
            while self._owed and loop.time() < deadline:
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._try()
                except TimeoutError:
                    break
                if self._owed:
                    await asyncio.sleep(RETRY_SECONDS)
            if self._owed:
                _log.warning("what a run said last is given up: a later one begins", run=self._copy.run.run)
                await self._settle()

    async def _try(self) -> None:
        """Try once; whatever goes wrong, it can be tried again, unless the session is no more."""
        try:
            await self._read()
        except (SessionClosedError, EpochChangedError):
            self._owed = False
        except UnavailableError:
            return
        except Exception:  # noqa: BLE001 - it must neither be forgotten nor keep a later run from its turn
            _log.exception("what a run said last cannot be added; it is tried again", run=self._copy.run.run)

    async def _read(self) -> None:
        run, parts = self._copy.run, self._parts
        for unread in run.unread:
            if not await self._read_earlier(unread):
                return
        reader = StreamReader(parts.connection, run.workflow_id, run.run_id)
        try:
            await self._copy.begin()
            await self._copy.read(reader, closed=True)
        except NoStreamError as error:
            carried = isinstance(error, NeverBegunError) and run.stream != run.run_id
            if reader.by_update or carried:  # a host that answers nobody once it is closed
                await self._settle()
                return
        except NotNowError as error:
            _log.debug("cannot read what a run said last", workflow_id=run.workflow_id, error=str(error))
            if await self._is_gone(run.run_id):
                await self._settle()
            return
        data = {"workflow_id": run.workflow_id, "run_id": run.run_id}
        await self._teller.tell(f"drained:{run.run}", self._teller.event(RUN_DRAINED, data))
        await self._settle()

    async def _read_earlier(self, unread: Unread) -> bool:
        """Read what a run before the last one has said, in its turn; False if that cannot be had yet."""
        run, parts = self._copy.run, self._parts
        earlier = msgspec.structs.replace(
            run, run_id=unread.run_id, stream=unread.stream, stream_attempt=unread.stream_attempt
        )
        copy = StreamCopy(earlier, self._teller, parts.accept, parts.runs, recorded=False)
        try:
            await copy.begin()
            await copy.read(StreamReader(parts.connection, run.workflow_id, unread.run_id), closed=True)
        except NoStreamError:
            pass
        except AttemptFencedError:
            _log.info("what an earlier run said was undone by a reset", workflow_id=run.workflow_id)
        except NotNowError as error:
            _log.debug("cannot read what an earlier run said", workflow_id=run.workflow_id, error=str(error))
            if not await self._is_gone(unread.run_id):
                return False
        await self._copy.change(unread=tuple([left for left in self._copy.run.unread if left != unread]))
        return True

    async def _is_gone(self, run_id: str) -> bool:
        """Whether Temporal says that it has no such run, and has said so before: then nobody can be asked for it any more."""
        handle = self._parts.connection.client.get_workflow_handle(self._copy.run.workflow_id, run_id=run_id)
        try:
            await handle.describe(rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            self._absent = self._absent + 1 if is_forgotten(error) else 0
        else:
            self._absent = 0
        gone = self._absent >= UNKNOWN_TIMES
        if gone:
            self._absent = 0
        return gone

    async def _settle(self) -> None:
        await self._copy.change(owed=False)
        self._owed = False
