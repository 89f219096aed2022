"""The server of an engine: its connections and its errors, without its password."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlunsplit

import asyncpg

from wakeline.errors import EngineRefusedError, StorageFailedError, StorageFullError, WakelineError
from wakeline.gateway.log.engines.addresses import split
from wakeline.gateway.log.engines.postgres import refusals
from wakeline.gateway.runtime import StoreOutage
from wakeline.retry import Backoff

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]
else:
    Connection: TypeAlias = asyncpg.Connection

CONNECTIONS: Final = 9
"""The most connections of a gateway: readers, writers, the one that listens, and the one that erases."""

CONNECT_SECONDS: Final = 5.0
COMMAND_SECONDS: Final = 15.0
FULL_SECONDS: Final = 10.0
"""The seconds for which a disk counts as full after a write that it refused."""

_LEAST_VERSION: Final = 140_000
_SILENCE_MILLISECONDS: Final = 15_000

FAILURES: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""Every error of a statement or connection."""

_ELSEWHERE: Final = (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.TargetServerAttributeNotMatched)
"""The errors after which another host may accept the connection."""

_AWAY: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
)
"""The errors of a server that cannot be used; after the others, some statements still succeed."""

_PASSING: Final = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
)
_KINDS: Final[tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...]] = (
    (_PASSING, "other transactions were in the way"),
    (asyncpg.CannotConnectNowError, "it is starting or stopping"),
    (asyncpg.OperatorInterventionError, "it is stopping"),
    (asyncpg.TooManyConnectionsError, "too many connections"),
    (asyncpg.DiskFullError, "no space on a disk"),
    (asyncpg.ReadOnlySQLTransactionError, "it is read-only"),
    (TimeoutError, "no answer in time"),
    ((OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError), "no connection"),
)
"""The meaning of errors, for those who do not know the names of asyncpg's."""


class Target:
    """A database, by its address.

    Args:
        address: `postgres://USER:PASSWORD@HOST:PORT/DATABASE?…`, as libpq defines it; missing parts come from the variables
            `PGHOST`, `PGPASSWORD`, … and from the password file. The additional parameter `statement_cache_size` is for poolers.
    """

    def __init__(self, address: str) -> None:
        parts = split(address, refusals.EXAMPLE)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        cached = query.pop("statement_cache_size", "100")
        if not cached.isdigit():
            raise EngineRefusedError(
                f"expected a whole number in statement_cache_size of the engine's address, got {cached!r}"
            )
        self._cached = int(cached)
        # Of several hosts, and after a failover, the one that accepts writes.
        self._wanted: Any = query.pop("target_session_attrs", "read-write")
        refusals.check_files(query)
        self._query = {**query, "target_session_attrs": self._wanted}
        login, at, hosts = parts.netloc.rpartition("@")
        # asyncpg has one time limit for all hosts: a silent one would keep it from the others.
        self._addresses = [
            urlunsplit(parts._replace(netloc=f"{login}{at}{host}", query=urlencode(query))) for host in hosts.split(",")
        ]
        self._used = 0  # the one of them that was used last
        # The order is that of libpq: the variable counts if the address names no host.
        self.name = f"PostgreSQL at {hosts or query.get('host') or os.environ.get('PGHOST') or 'its default host'}"
        self.outage = StoreOutage(self.name)
        self._backoff = Backoff(0.05, 1.0)
        self._refusal: tuple[float, BaseException] | None = None
        self._full_at = -FULL_SECONDS

    def __repr__(self) -> str:
        """Return the server without user, password and parameters."""
        return f"Target({self.name})"

    async def connect(self) -> Connection:
        """Open a connection.

        After a failure, further calls fail at once for a moment, so that requests do not queue up for a server that is away.

        Raises:
            OSError: The server cannot be reached.
            asyncpg.PostgresError: It refuses the connection.
        """
        if self._refusal is not None and time.monotonic() < self._refusal[0]:
            raise self._refusal[1].with_traceback(None)
        try:
            connection = await self._connect()
        except FAILURES as error:
            self._refusal = (time.monotonic() + self._backoff.pause(), error)
            raise
        self._refusal = None
        self._backoff.reset()
        self.outage.works()
        _end_with_its_network(connection)
        return connection

    async def _connect(self) -> Connection:
        """Connect to the host that was used last, or to the next one that accepts writes."""
        began, failure = self._used, None
        for place in range(began, began + len(self._addresses)):
            at = place % len(self._addresses)
            try:
                connection = await asyncpg.connect(
                    self._addresses[at],
                    timeout=CONNECT_SECONDS,
                    command_timeout=COMMAND_SECONDS,
                    statement_cache_size=self._cached,
                    target_session_attrs=self._wanted,
                    server_settings={"application_name": "wakeline"},
                )
            except _ELSEWHERE as error:
                failure = error
            else:
                self._used = at
                return connection
        assert failure is not None
        raise failure

    async def open(self) -> Connection:
        """Connect for the first time, and check that the server fits.

        Raises:
            EngineRefusedError: The server cannot be used; the message has the reason.
        """
        try:
            connection = await self.connect()
        except (*FAILURES, ValueError) as error:
            raise refusals.of_connection(self.name, error, self._query) from None
        try:
            version = int(await connection.fetchval("SHOW server_version_num"))
            if version < _LEAST_VERSION:
                raise self._unfit(f"version 14 or later, it has version {version // 10_000}", "Upgrade the server.")
            encoding = await connection.fetchval("SHOW server_encoding")
            if encoding != "UTF8":
                raise self._unfit(f"a database in UTF8, its encoding is {encoding}", "Create a database in UTF8.")
        except FAILURES as error:
            connection.terminate()
            raise refusals.of_statement(self.name, error) from None
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _unfit(self, expected: str, hint: str) -> EngineRefusedError:
        return refusals.unfit(self.name, expected, hint)

    async def refusal(self, error: BaseException, connection: Connection) -> WakelineError:
        """Return the error for a failed statement of a start, or of an admin command.

        Args:
            error: The error.
            connection: The connection of the statement.
        """
        if isinstance(error, asyncpg.DiskFullError):
            return self.failure(error)
        if isinstance(error, asyncpg.InsufficientPrivilegeError):
            return await self.lacking(connection, refusals.text_of(error))
        return refusals.of_statement(self.name, error)

    async def lacking(self, connection: Connection, lacks: str) -> EngineRefusedError:
        """Return the refusal of the connection's role, which lacks rights on the tables."""
        try:
            role = await connection.fetchval("SELECT quote_ident(current_user)")
        except FAILURES:
            role = "role"
        return refusals.of_rights(self.name, role, lacks)

    @property
    def is_full(self) -> bool:
        """Whether the server has refused a write for want of space a moment ago."""
        return time.monotonic() - self._full_at < FULL_SECONDS

    def failure(self, error: BaseException) -> WakelineError:
        """Return the error for callers of a statement that failed; log the failure.

        Anybody may read this error, at `/readyz` even without a token. So only the log names the server, and has its message,
        which may name roles and hosts.
        """
        kind = kind_of(error)
        if isinstance(error, _AWAY) and not passes(error):
            self.outage.failed(f"{kind}: {_text(error)}")
        else:
            many = isinstance(error, asyncpg.TooManyConnectionsError)
            advice = f"; a gateway uses {CONNECTIONS} connections" if many else ""
            self.outage.refused(kind, f"{_text(error)}{advice}")
        if isinstance(error, asyncpg.DiskFullError):
            self._full_at = time.monotonic()
            return StorageFullError(
                "PostgreSQL has no space on a disk",
                hint="Make space on the server's disk, then retry; the gateway recovers automatically.",
            )
        return StorageFailedError.of_outage(f"PostgreSQL failed: {kind}")


def _end_with_its_network(connection: Connection) -> None:
    """Have the system close a connection whose network is gone: a commit waits without a limit."""
    transport: asyncio.WriteTransport | None = getattr(
        connection, "_transport", None
    )  # asyncpg has no public name for it
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or sock.family == socket.AF_UNIX:
        return
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE_MILLISECONDS)


def _text(error: BaseException) -> str:
    return str(error) or kind_of(error)


def kind_of(error: BaseException) -> str:
    """Return what an error means, in words that name no role, host or table."""
    for kinds, words in _KINDS:
        if isinstance(error, kinds):
            return words
    code = error.sqlstate if isinstance(error, asyncpg.PostgresError) else None
    return f"it refused a statement (SQLSTATE {code})" if code else "no attempt of the transaction succeeded"


def passes(error: BaseException) -> bool:
    """Return whether a transaction that failed may succeed when it is repeated."""
    return isinstance(error, _PASSING)


class Link:
    """One connection, opened when it is needed, and again after it was lost.

    Args:
        target: The database.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._connection: Connection | None = None

    def use(self, connection: Connection) -> None:
        """Use a connection that is open already."""
        self._connection = connection

    async def get(self) -> Connection:
        """Return the connection.

        Raises:
            OSError: The server cannot be reached.
            asyncpg.PostgresError: It refuses the connection.
        """
        if not self.is_open:
            self._connection = await self._target.connect()
        assert self._connection is not None
        return self._connection

    @property
    def is_open(self) -> bool:
        """Whether there is a connection that is not known to be lost."""
        return self._connection is not None and not self._connection.is_closed()

    def drop(self) -> None:
        """Cut the connection: its state is not known."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            try:
                await connection.close(timeout=2)
            except FAILURES:
                connection.terminate()

    async def fetch(self, query: str, *given: Any) -> list[asyncpg.Record]:
        """Read rows; a connection that turns out to be lost is replaced once.

        Raises:
            StorageFailedError: The server cannot be reached, or refuses the statement.
        """
        while True:
            reused = self.is_open
            try:
                connection = await self.get()
                rows = await connection.fetch(query, *given)
            except FAILURES as error:
                if isinstance(error, TimeoutError):
                    self.drop()
                if not reused or self.is_open:
                    raise self._target.failure(error) from error
            else:
                self._target.outage.works()
                return rows
