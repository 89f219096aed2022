"""Closes requests when their time is over, so that devices see it.

Nothing depends on it: an answer or a read after that time closes the request as well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

import structlog

from wakeline.background import cancel_all, wait_at_most
from wakeline.errors import RequestNotFoundError, SessionClosedError, SessionImportingError, UnavailableError
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.runtime import Timetable, log_failure, supervised
from wakeline.gateway.sessions import InputRequest, InputRequests

_AGAIN: Final = 1.0
"""Seconds until a request that could not be closed is tried again."""

_REST: Final = 9.0
"""The pause after the records were read, as a multiple of the time that it took: they may be very many."""

_log = structlog.get_logger(__name__)


class Expiry:
    """The deadlines of the open requests that this gateway has received, or owns.

    Args:
        records: The records of requests.
        ownership: Decides which gateway continues with the requests of ended ones.
        lease: The time in seconds after which the records are read again, on a shared store, if they are read fast.
        find: Returns a request as it is now, and closes it if its time is over.
        finish: Finishes a closed request whose open record is still there.
        shared: Whether several gateways use the store.
    """

    def __init__(
        self,
        records: InputRequests,
        ownership: Ownership,
        lease: float,
        find: Callable[[str, str], Awaitable[InputRequest]],
        finish: Callable[[InputRequest], Awaitable[None]],
        *,
        shared: bool,
    ) -> None:
        self._records = records
        self._ownership = ownership
        self._lease = lease
        self._find = find
        self._finish = finish
        self._shared = shared
        self._deadlines = Timetable[tuple[str, str]]()  # by session and id
        self._unsure: set[tuple[str, str]] = set()  # requests that `check` was called with
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Close requests from now on, and continue with those of ended gateways."""
        self._tasks = [supervised("open requests", self._read), supervised("requests", self._run)]

    async def stop(self) -> None:
        """Stop."""
        await cancel_all(*self._tasks)

    def note(self, request: InputRequest) -> None:
        """Remember when a request expires."""
        at = expires(request)
        if request.resolved is None and at is not None and self._deadlines.put((request.session, request.id), at):
            self._changed.set()

    def forget(self, request: InputRequest) -> None:
        """Forget a request that is closed."""
        self._deadlines.remove((request.session, request.id))
        self._unsure.discard((request.session, request.id))

    def check(self, request: InputRequest) -> None:
        """Read a request soon, and finish it if it is closed.

        The log may have more of it than its record.
        """
        self._unsure.add((request.session, request.id))
        if self._deadlines.put((request.session, request.id), time.time() + _AGAIN):
            self._changed.set()

    async def _read(self) -> None:
        """Continue with the open requests of the store that this gateway owns."""
        while True:
            began = time.monotonic()
            async for request in self._records.open():
                if self._ownership.owns(request.session):
                    await self._resume(request.session, request.id)
            if not self._shared:
                return
            await asyncio.sleep(max(self._lease, _REST * (time.monotonic() - began)))

    async def _run(self) -> None:
        while True:
            while (due := self._deadlines.pop(time.time())) is not None:
                await self._close(*due)
            self._changed.clear()
            first = self._deadlines.first()
            pause = self._lease if first is None else first - time.time()
            await wait_at_most(max(0.001, min(pause, self._lease)), self._changed.wait())

    async def _resume(self, session: str, id: str) -> None:
        """Continue with a request whose open record is there: wait for its expiry, or finish it."""
        try:
            request = await self._find(session, id)
            if request.resolved is not None:
                await self._finish(request)
            self.note(request)
        except (RequestNotFoundError, SessionClosedError, SessionImportingError):
            pass  # it is gone
        except UnavailableError:
            raise  # for all requests: they are read again
        except Exception:  # noqa: BLE001 - so that one request does not hinder the others
            _log.exception("a request cannot be continued", session=session, request=id)

    async def _close(self, session: str, id: str) -> None:
        again: float | None = None
        try:
            request = await self._find(session, id)
            if request.resolved is not None and (session, id) in self._unsure:
                await self._finish(request)
            self._unsure.discard((session, id))
            # It is open if the clock was set back, or if it was only to be checked.
            at = expires(request) if request.resolved is None else None
            again = None if at is None else max(_AGAIN, at - time.time())
        except UnavailableError as error:
            log_failure(_log, "a request cannot be closed now", error, session=session)
            again = _AGAIN
        except (RequestNotFoundError, SessionClosedError):
            self._unsure.discard((session, id))  # it is gone
        except Exception:  # noqa: BLE001 - so that one request does not hinder the others
            _log.exception("a request cannot be closed", session=session, request=id)
            again = self._lease
        if again is None:
            self._deadlines.remove((session, id))
        else:
            self._deadlines.put((session, id), time.time() + again)


def expires(request: InputRequest) -> float | None:
    """Return the Unix time from which a request accepts no answer; None for never."""
    at = request.requested.expires_at
    return None if at is None else datetime.fromisoformat(at).timestamp()
