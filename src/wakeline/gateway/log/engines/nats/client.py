"""The client of nats-py, which reconnects whatever has ended its connection."""

from __future__ import annotations

from typing import Final

import structlog
from nats.aio.client import Client, Srv
from nats.aio.transport import TcpTransport
from nats.errors import Error

_DENIES: Final = "permissions violation"  # the server ignores a request, and keeps the connection
_log = structlog.get_logger(__name__)


class LastingClient(Client):
    """A client that reconnects after every error, with or without a public key.

    Attributes:
        denied: The last request that the user may not make, as the server reports it; empty if there was none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.denied = ""

    def identify(self, public_key: str) -> None:
        """Log in with a public key, whose signatures the option `signature_cb` makes."""
        self._public_nkey = public_key  # nats-py has no public name for it

    async def close(self) -> None:
        """Close the connection, if there ever was an attempt to make one."""
        if self._flush_queue is not None:  # nats-py asserts that
            await super().close()

    def abort(self) -> None:
        """Drop the connection without sending what is pending."""
        writer = self._transport._io_writer if isinstance(self._transport, TcpTransport) else None
        if writer is not None:
            writer.transport.abort()

    async def _attempt_reconnect(self) -> None:
        # nats-py first waits until the old connection has sent everything, on a dead network for a quarter of an hour.
        self.abort()
        await super()._attempt_reconnect()

    async def _connect_to_server(self, s: Srv) -> None:
        # nats-py replaces a connection whose handshake has failed without closing it.
        if self._transport is not None:
            self._transport.close()  # type: ignore[no-untyped-call]  # nats-py gives it no types
        await super()._connect_to_server(s)

    async def _process_err(self, err_msg: str) -> None:
        # After most errors, such as a changed password, nats-py closes the client for good, and all later writes fail.
        if _DENIES in err_msg.lower():
            denied, self.denied = self.denied, err_msg.strip("'")
            if denied != self.denied:
                _log.warning("NATS denies a request", error=self.denied)
        else:
            await self._process_op_err(Error(f"nats: {err_msg}"))
