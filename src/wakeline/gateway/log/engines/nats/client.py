"""The client of nats-py, which reconnects whatever has ended its connection."""

from __future__ import annotations

import asyncio
import time
from asyncio import StreamWriter
from typing import Any, Final

import structlog
from nats.aio.client import DEFAULT_BUFFER_SIZE, Client, Srv
from nats.aio.transport import TcpTransport
from nats.errors import Error

_CANCEL_SECONDS: Final = 0.1
_DENIES: Final = "permissions violation"  # the server ignores a request, and keeps the connection
_log = structlog.get_logger(__name__)


class _Transport(TcpTransport):
    """A connection that can be closed after a failed handshake of TLS, too."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # nats-py gives it no types
        self._failed = False

    async def connect_tls(self, *args: Any, **how: Any) -> None:
        try:
            await super().connect_tls(*args, **how)
        except BaseException:
            self._failed = True
            raise

    async def wait_closed(self) -> None:
        # The stream had its protocol replaced for the handshake, and never learns that its connection is gone.
        if not self._failed:
            await super().wait_closed()  # type: ignore[no-untyped-call]


class LastingClient(Client):
    """A client that reconnects after every error, with or without a public key.

    Attributes:
        denied: The last request that the user may not make, as the server reports it; empty if there was none.
        encrypts: Whether it connects with TLS only.
    """

    def __init__(self) -> None:
        super().__init__()
        self.denied = ""
        self.encrypts = False

    def identify(self, public_key: str) -> None:
        """Log in with a public key, whose signatures the option `signature_cb` makes."""
        self._public_nkey = public_key  # nats-py has no public name for it

    async def close(self) -> None:
        """Close the connection, if there ever was an attempt to make one."""
        if self._flush_queue is not None:  # nats-py asserts that
            await self._stop_reconnecting()
            await super().close()

    def abort(self) -> None:
        """Drop the connection without sending what is pending."""
        if (writer := self._writer()) is not None:
            writer.transport.abort()

    async def _stop_reconnecting(self) -> None:
        # nats-py cancels this task once. Its `wait_for` forgets that, before Python 3.12, where the wait is over just then, and
        # the client would connect after it was closed.
        own = asyncio.current_task()
        while (task := self._reconnection_task) is not None and task is not own and not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_CANCEL_SECONDS)

    def _writer(self) -> StreamWriter | None:
        return self._transport._io_writer if isinstance(self._transport, TcpTransport) else None

    def _connect_command(self) -> bytes:
        # nats-py follows a server that does not ask for TLS, and would send it the password in clear text.
        if self.encrypts and ((writer := self._writer()) is None or writer.get_extra_info("ssl_object") is None):
            raise Error("the server offers no TLS, and the engine's address asks for it")
        return super()._connect_command()

    async def _attempt_reconnect(self) -> None:
        # nats-py first waits until the old connection has sent everything, on a dead network for a quarter of an hour.
        self.abort()
        await super()._attempt_reconnect()

    async def _connect_to_server(self, s: Srv) -> None:
        # nats-py replaces a connection whose handshake has failed without closing it. Over TLS, closing it would take a while,
        # and what is replaced by then would never be closed.
        self.abort()
        s.last_attempt = time.monotonic()
        self._transport = _Transport()
        await self._transport.connect(s.uri, DEFAULT_BUFFER_SIZE, self.options["connect_timeout"])

    async def _process_err(self, err_msg: str) -> None:
        # After most errors, such as a changed password, nats-py closes the client for good, and all later writes fail.
        if _DENIES in err_msg.lower():
            denied, self.denied = self.denied, err_msg.strip("'")
            if denied != self.denied:
                _log.warning("NATS denies a request", error=self.denied)
        else:
            await self._process_op_err(Error(f"nats: {err_msg}"))
