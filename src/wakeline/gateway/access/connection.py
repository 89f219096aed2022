"""One connection: aiohttp's own, which tells what has come of a request, and can be ended before there is one."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Any, Final, Protocol, cast

import msgspec
from aiohttp import StreamReader, hdrs, web

from wakeline.errors import (
    ExpectationFailedError,
    RequestInvalidError,
    RequestTimeoutError,
    WakelineError,
)

MAX_HEAD_BYTES: Final = 32 * 1024
_END: Final = b"\r\n\r\n"


class Watch(Protocol):
    """Who keeps the connections."""

    def admit(self, connection: Connection, peername: object) -> str | None:
        """Count a new connection; gives by whom it is counted (empty for nobody), None if it is one too many."""
        ...

    def release(self, connection: Connection, peer: str) -> None:
        """It has ended."""
        ...

    def expect_head(self, connection: Connection) -> None:
        """From now on a head is waited for."""
        ...

    def heard(self, connection: Connection, count: int) -> None:
        """Bytes have come after the head."""
        ...


class _Waits(Enum):
    NOTHING_YET = auto()
    HEAD = auto()
    REQUEST = auto()


class Connection(web.RequestHandler):
    """One connection.

    Args:
        server: aiohttp's.
        watch: Told of what comes.
        how: What aiohttp's own takes.
    """

    __slots__ = ("_counted", "_held", "_overflow", "_received", "_refused", "_room", "_tail", "_waits", "_watch")

    def __init__(self, server: web.Server, watch: Watch, **how: Any) -> None:
        super().__init__(server, **how)
        self._watch = watch
        self._waits = _Waits.NOTHING_YET
        self._received = 0
        self._tail = b""
        self._counted: str | None = None
        self._refused: StreamReader | None = None
        self._room: int | None = None
        self._held = b""
        self._overflow: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take it, or, if there are too many, end it before anything is read."""
        peer = self._watch.admit(self, transport.get_extra_info("peername"))
        if peer is None:
            cast(asyncio.Transport, transport).abort()  # uvloop's is one, but does not say so
            return
        self._counted = peer
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """It has ended."""
        if self._counted is not None:
            self._watch.release(self, self._counted)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Note what has come, then have it parsed."""
        if not data:  # aiohttp's own way to parse on after a pause
            return super().data_received(data)
        if self._room is not None:
            data, self._held = data[: self._room], self._held + data[self._room :]
            self._room -= len(data)
            self._hold()
        if self._refused is not None and self._refused.is_eof():
            self._refused = None
        if self._waits is _Waits.REQUEST:
            self._watch.heard(self, len(data))
        elif self._refused is None:
            if self._waits is _Waits.NOTHING_YET:
                self._waits, self._received, self._tail = _Waits.HEAD, 0, b""
                self._watch.expect_head(self)
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
        """Read on."""
        held, self._room, self._held = self._held, None, b""
        if held:
            super().data_received(held)
            if not self._reading_paused:
                self.resume_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Read on, unless more has come than may be read now."""
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
        """How long the head is that ends in `data`; None if it does not end there."""
        at = (self._tail + data[:3]).find(_END)
        if at >= 0:
            return self._received - len(self._tail) + at
        at = data.find(_END)
        return None if at < 0 else self._received + at

    def request_began(self) -> None:
        """Its head is through the parser."""
        self._waits = _Waits.REQUEST

    def request_over(self, body: StreamReader) -> None:
        """Note that the request was answered: the next head follows, or first the rest of a body that was refused.

        A client that sends its whole body before it reads would lose the answer if that rest were taken for a head.
        """
        self._waits = _Waits.NOTHING_YET
        self._refused = None if body.is_eof() else body

    def head_overdue(self) -> None:
        """Its head did not come in time. Who has sent nothing at all is not waiting for an answer either."""
        if self._waits is _Waits.NOTHING_YET:
            self.force_close()
        else:
            self.refuse(RequestTimeoutError("the request's headers did not come in time"))

    def refuse(self, error: WakelineError) -> None:
        """Answer before there is a request, and end."""
        if self.transport is not None and not self.transport.is_closing():
            body = msgspec.json.encode(error.wire())
            head = f"HTTP/1.1 {error.status} Refused\r\nContent-Type: application/json\r\nConnection: close\r\n"
            self.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        self.force_close()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what is no HTTP in the one shape. Its bytes, which may hold a token, go neither there nor to the log."""
        if isinstance(
            exc, UnicodeEncodeError
        ):  # aiohttp answers an unknown `Expect` with its text, before any route is asked
            answer = _answer(
                RequestInvalidError("expected headers in UTF-8", hint="Encode the header's value as UTF-8.")
            )
            answer.force_close()
            return answer
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        answer = _answer(RequestInvalidError("expected a request as HTTP/1.1 has it", hint="Send HTTP/1.1."))
        answer.force_close()
        return answer

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; one that aiohttp gives before any route is asked has the one shape, too."""
        if isinstance(resp, web.HTTPExpectationFailed):
            expected = request.headers.get(hdrs.EXPECT, "")
            resp = _answer(ExpectationFailedError(f"expected Expect: 100-continue, got {expected[:40]!r}"))
        return await super().finish_response(request, resp, start_time)


def _answer(error: WakelineError) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(error.wire()),
        status=error.status,
        content_type="application/json",
        headers=error.headers(),
    )
