"""The protocol of one connection: aiohttp's, with limits that precede the request."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from aiohttp import StreamReader, hdrs, web

from wakeline.errors import (
    ExpectationFailedError,
    RequestInvalidError,
    RequestTimeoutError,
    WakelineError,
)

if TYPE_CHECKING:
    from wakeline.gateway.access.connections import Connections

MAX_HEAD_BYTES: Final = 32 * 1024
_END: Final = b"\r\n\r\n"


class _Waits(Enum):
    NOTHING_YET = auto()
    HEAD = auto()
    REQUEST = auto()


class HttpConnection(web.RequestHandler):
    """One connection, which limits a request's head and can be refused before a request exists.

    Args:
        server: aiohttp's server.
        connections: Counts the connection and limits the time of its requests.
        how: Further arguments of `web.RequestHandler`.
    """

    __slots__ = ("_connections", "_counted", "_held", "_overflow", "_received", "_refused", "_room", "_tail", "_waits")

    def __init__(self, server: web.Server, connections: Connections, **how: Any) -> None:
        super().__init__(server, **how)
        self._connections = connections
        self._waits = _Waits.NOTHING_YET
        self._received = 0
        self._tail = b""
        self._counted: str | None = None
        self._refused: StreamReader | None = None
        self._room: int | None = None
        self._held = b""
        self._overflow: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept the connection, or abort it before anything is read if too many are open."""
        peer = self._connections.admit(self, transport.get_extra_info("peername"))
        if peer is None:
            cast(asyncio.Transport, transport).abort()  # uvloop's transport has `abort` without deriving from Transport
            return
        self._counted = peer
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Remove the connection from its observer."""
        if self._counted is not None:
            self._connections.release(self, self._counted)
        super().connection_lost(exc)

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """End the connection when the gateway stops, without a wait if no request is under way."""
        # aiohttp closes the idle connections once, before this. One that a client has opened since then, because its last
        # one was ended, would wait for a request until the time is over.
        self.close()
        await super().shutdown(timeout)

    def data_received(self, data: bytes) -> None:
        """Count the bytes, enforce the limits on the head, and pass the bytes to the parser."""
        if not data:  # aiohttp calls with no data to continue parsing after a pause
            return super().data_received(data)
        if self._room is not None:
            data, self._held = data[: self._room], self._held + data[self._room :]
            self._room -= len(data)
            self._hold()
        if self._refused is not None and self._refused.is_eof():
            self._refused = None
        if self._waits is _Waits.REQUEST:
            self._connections.heard(self, len(data))
        elif self._refused is None:
            if self._waits is _Waits.NOTHING_YET:
                self._waits, self._received, self._tail = _Waits.HEAD, 0, b""
                self._connections.expect_head(self)
            ends = self._head_ends(data)
            self._received += len(data)
            if (self._received if ends is None else ends) > MAX_HEAD_BYTES:
                return self.refuse(RequestInvalidError(f"expected at most {MAX_HEAD_BYTES} bytes of headers"))
            if ends is not None:
                self._waits = _Waits.REQUEST
            else:
                self._tail = (self._tail + data[-3:])[-3:]
        return super().data_received(data)

    def take_at_most(self, count: int) -> asyncio.Future[None]:
        """Read only this many more bytes until `take_all`: the caller is not authenticated yet.

        Returns:
            A future that is done once more bytes have arrived.
        """
        self._room = count
        self._overflow = asyncio.get_running_loop().create_future()
        return self._overflow

    def take_all(self) -> None:
        """Lift the limit of `take_at_most` and parse the bytes that were held back."""
        held, self._room, self._held = self._held, None, b""
        if held:
            super().data_received(held)
            if not self._reading_paused:
                self.resume_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Resume reading, unless bytes beyond the limit of `take_at_most` are held."""
        super().resume_reading(resume_parser)
        self._hold()

    def _hold(self) -> None:
        if not self._held:
            return
        if self._overflow is not None and not self._overflow.done():
            self._overflow.set_result(None)
        transport = self.transport
        if transport is not None and not transport.is_closing() and transport.is_reading():
            transport.pause_reading()

    def _head_ends(self, data: bytes) -> int | None:
        """Return the length of the head if it ends in `data`, otherwise None."""
        at = (self._tail + data[:3]).find(_END)
        if at >= 0:
            return self._received - len(self._tail) + at
        at = data.find(_END)
        return None if at < 0 else self._received + at

    def request_began(self) -> None:
        """Note that the parser has read a request's head."""
        self._waits = _Waits.REQUEST

    def request_over(self, body: StreamReader) -> None:
        """Note that the request was answered.

        The next bytes are a head, or the rest of a refused body: a client that sends its whole body before it reads
        would lose the answer if that rest were parsed as a head.
        """
        self._waits = _Waits.NOTHING_YET
        self._refused = None if body.is_eof() else body

    def head_overdue(self) -> None:
        """End the connection, because its head is late; answer only if some of it has arrived."""
        if self._waits is _Waits.NOTHING_YET:
            self.force_close()
        else:
            self.refuse(RequestTimeoutError("the request's headers did not arrive in time"))

    def refuse(self, error: WakelineError) -> None:
        """Answer with an error although there is no request, and close the connection."""
        if self.transport is not None and not self.transport.is_closing():
            body = msgspec.json.encode(error.wire())
            head = f"HTTP/1.1 {error.status} Refused\r\nContent-Type: application/json\r\nConnection: close\r\n"
            self.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        self.force_close()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer invalid HTTP with Wakeline's error format.

        The request's bytes, which may contain a token, appear neither in the answer nor in the log.
        """
        # aiohttp quotes an unknown `Expect` in its answer, before any route is called.
        if isinstance(exc, UnicodeEncodeError):
            answer = _answer(
                RequestInvalidError("expected headers in UTF-8", hint="Encode the header's value as UTF-8.")
            )
            answer.force_close()
            return answer
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        answer = _answer(RequestInvalidError("expected a valid HTTP/1.1 request", hint="Send HTTP/1.1."))
        answer.force_close()
        return answer

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; replace aiohttp's own answer to `Expect` by Wakeline's error format.

        The connection ends with an answer whose length its client, of HTTP/1.0, could not tell otherwise.
        """
        if isinstance(resp, web.HTTPExpectationFailed):
            expected = request.headers.get(hdrs.EXPECT, "")
            resp = _answer(ExpectationFailedError(f"expected Expect: 100-continue, got {expected[:40]!r}"))
        if request.version < (1, 1) and resp.content_length is None:
            resp.force_close()
        return await super().finish_response(request, resp, start_time)


def close_after(answer: web.StreamResponse) -> None:
    """End the connection after an answer that is being prepared, and announce it in its head."""
    answer.force_close()
    answer.headers[hdrs.CONNECTION] = "close"  # aiohttp has decided on the header before


def _answer(error: WakelineError) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(error.wire()),
        status=error.status,
        content_type="application/json",
        headers=error.headers(),
    )
