"""Looks names up, so that a name server which does not answer delays no other work.

A look-up is a blocking call, which nothing can cancel, and users choose the names of push services. asyncio's own threads are
few, and the rest of the gateway needs them for its own look-ups. So each look-up here has a thread of its own, and a user has
few of them at a time.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from threading import Thread
from typing import Any, Final, TypeAlias
from weakref import WeakValueDictionary

from aiohttp.abc import AbstractResolver, ResolveResult

MOST: Final = 64
"""The most look-ups at a time."""

MOST_ALIKE: Final = 2
"""The most look-ups at a time for one user; of one name, where nobody is named."""

_Found: TypeAlias = Sequence[tuple[Any, ...]]
_Key: TypeAlias = tuple[str, str, int, socket.AddressFamily]
"""The user, or the name again, for `MOST_ALIKE`; then the name, the port and the family."""

_user: ContextVar[str] = ContextVar("user", default="")


@contextmanager
def looking_up_for(user: str) -> Iterator[None]:
    """Count the look-ups inside the block as those of a user, also in tasks that begin there."""
    token = _user.set(user)
    try:
        yield
    finally:
        _user.reset(token)


class Resolver(AbstractResolver):
    """Looks names up in daemon threads, which do not delay the end of the process."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(MOST)
        self._alike: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._under_way: dict[_Key, asyncio.Future[_Found]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name; those who ask for one at the same time share the answer.

        Raises:
            OSError: It has none, or the name servers do not answer.
        """
        user = _user.get()
        key = (f"user:{user}" if user else host, host, port, family)
        found = self._under_way.get(key) or await self._begun(key)
        # Shielded: the thread goes on if the caller leaves, and counts until it ends.
        return [_result(host, info) for info in await asyncio.shield(found)]

    async def close(self) -> None:
        """Do nothing: threads end by themselves."""

    async def _begun(self, key: _Key) -> asyncio.Future[_Found]:
        """Begin a look-up when there is room, unless it has begun meanwhile."""
        alike = self._alike.setdefault(key[0], asyncio.Semaphore(MOST_ALIKE))
        await alike.acquire()
        try:
            await self._all.acquire()
        except BaseException:
            alike.release()
            raise
        if (known := self._under_way.get(key)) is not None:
            self._all.release()
            alike.release()
            return known
        found = self._under_way[key] = asyncio.get_running_loop().create_future()

        def ended(_: asyncio.Future[_Found]) -> None:
            del self._under_way[key]
            self._all.release()
            alike.release()
            if not found.cancelled():
                found.exception()  # it was seen: the caller may have left

        found.add_done_callback(ended)
        try:
            Thread(target=_look_up, args=(found, *key[1:]), name="wakeline-name", daemon=True).start()
        except RuntimeError:  # there are too many threads
            found.set_exception(OSError("no thread for a look-up could be started"))
        return found


def _look_up(found: asyncio.Future[_Found], host: str, port: int, family: socket.AddressFamily) -> None:
    """Look a name up in this thread."""
    try:
        infos = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except Exception as error:  # noqa: BLE001 - the caller raises it
        _report(found, error)
    else:
        _report(found, infos)


def _report(found: asyncio.Future[_Found], outcome: _Found | Exception) -> None:
    def report() -> None:
        if found.done():
            return
        if isinstance(outcome, Exception):
            found.set_exception(outcome)
        else:
            found.set_result(outcome)

    with suppress(RuntimeError):  # the loop is closed
        found.get_loop().call_soon_threadsafe(report)


def _result(host: str, info: tuple[Any, ...]) -> ResolveResult:
    family, _, proto, _, address = info
    scoped = f"{address[0]}%{address[3]}" if family == socket.AF_INET6 and address[3] else address[0]
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=scoped, port=address[1], family=family, proto=proto, flags=flags)
