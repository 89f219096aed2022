"""Closes requests when their time is over, so that devices see it.

Nothing depends on it: an answer or a read after that time closes the request as well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import Final

import structlog

from wakeline.background import cancel_all
from wakeline.errors import RequestNotFoundError, SessionClosedError, UnavailableError
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.runtime import supervised
from wakeline.gateway.sessions import InputRequest, InputRequests

_AGAIN: Final = 1.0
"""Seconds until a request that could not be closed is tried again."""

_log = structlog.get_logger(__name__)


class Expiry:
    """The deadlines of the open requests that this gateway has received, or owns.

    Args:
        records: The records of requests.
        ownership: Decides which gateway continues with the requests of ended ones.
        lease: The time in seconds after which the records are read again, on a shared store.
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
        self._deadlines: dict[tuple[str, str], float] = {}  # Unix time, by session and id
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Close requests from now on, and continue with those of ended gateways."""
        self._task = supervised("requests", self._run)

    async def stop(self) -> None:
        """Stop."""
        await cancel_all(self._task)

    def note(self, request: InputRequest) -> None:
        """Remember when a request expires."""
        at = expires(request)
        if request.resolved is None and at is not None:
            self._deadlines[request.session, request.id] = at
            self._changed.set()

    def forget(self, request: InputRequest) -> None:
        """Forget a request that is closed."""
        self._deadlines.pop((request.session, request.id), None)

    async def _run(self) -> None:
        read_at: float | None = None
        while True:
            if read_at is None or (self._shared and time.monotonic() >= read_at + self._lease):
                for request in await self._records.open():
                    if self._ownership.owns(request.session):
                        await self._resume(request.session, request.id)
                read_at = time.monotonic()
            for (session, id), at in list(self._deadlines.items()):
                if at <= time.time():
                    await self._close(session, id)
            self._changed.clear()
            pause = min(self._deadlines.values(), default=time.time() + self._lease) - time.time()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.001, min(pause, self._lease))):
                    await self._changed.wait()

    async def _resume(self, session: str, id: str) -> None:
        """Continue with a request whose open record is there: wait for its expiry, or finish it."""
        try:
            request = await self._find(session, id)
            if request.resolved is not None:
                await self._finish(request)
            self.note(request)
        except UnavailableError:
            raise  # for all requests: they are read again
        except (RequestNotFoundError, SessionClosedError):
            pass
        except Exception:  # noqa: BLE001 - so that one request does not hinder the others
            _log.exception("a request cannot be continued", session=session, request=id)

    async def _close(self, session: str, id: str) -> None:
        again: float | None = None
        try:
            request = await self._find(session, id)
            again = _AGAIN if request.resolved is None else None  # the clock was set back
        except UnavailableError as error:
            _log.warning("a request cannot be closed now", session=session, error=error.message)
            again = _AGAIN
        except (RequestNotFoundError, SessionClosedError):
            pass  # it is gone
        except Exception:  # noqa: BLE001 - so that one request does not hinder the others
            _log.exception("a request cannot be closed", session=session, request=id)
            again = self._lease
        if again is None:
            self._deadlines.pop((session, id), None)
        else:
            self._deadlines[session, id] = time.time() + again


def expires(request: InputRequest) -> float | None:
    """Return the Unix time from which a request accepts no answer; None for never."""
    at = request.requested.expires_at
    return None if at is None else datetime.fromisoformat(at).timestamp()
