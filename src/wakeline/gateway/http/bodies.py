"""Reads the bodies of requests, after the caller was authorized.

aiohttp's own decompression is off. The decompressed size is limited, absolutely and in relation to the compressed size.
Bodies are decompressed in pieces, between which the event loop runs other tasks.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Final, TypeVar

import msgspec
from aiohttp import hdrs, web

from wakeline.errors import (
    BodyInvalidError,
    BodyTooLargeError,
    EncodingInvalidError,
    EncodingUnknownError,
    RequestInvalidError,
)
from wakeline.text import read_whole

T = TypeVar("T")

CODINGS: Final = ("gzip", "deflate")

MAX_FIELDS_BYTES: Final = 256 * 1024
"""The largest body of a request that has some fields and no events; such a body is decoded in one step."""

_MOST_RATIO: Final = 100
_UNRATED_BYTES: Final = 256 * 1024
"""Up to this decompressed size any ratio is allowed: it costs no more than an uncompressed body."""

_PIECE_BYTES: Final = 64 * 1024
_GZIP: Final = 16 + zlib.MAX_WBITS
_MOST_MEMBERS: Final = 1000
"""The most gzip members of a body: an empty member has 20 bytes and costs as much as a piece."""


async def read_body(request: web.Request, most: int | None = None) -> bytes:
    """Return a request's whole body, decompressed.

    Args:
        request: The request.
        most: The most bytes, if that is less than `max_body_bytes`.

    Raises:
        BodyTooLargeError: The body exceeds `max_body_bytes` or `most`, or the limit on its compression ratio.
        EncodingInvalidError: The body does not have the coding of `Content-Encoding`.
        EncodingUnknownError: The coding is not supported.
        RequestInvalidError: The body's HTTP framing is broken.
    """
    hint = None if most is None else "Send less in one request."
    most = request.client_max_size if most is None else min(most, request.client_max_size)
    if (request.content_length or 0) > most:
        raise BodyTooLargeError(f"expected at most {most} bytes of body", hint=hint)
    content, body = request.content, bytearray()
    if content.is_eof() and content.exception() is None and hdrs.CONTENT_ENCODING not in request.headers:
        # A small body arrives with its head. The generators of the general way cost as much as decoding it.
        body += content.read_nowait()
    else:
        async for piece in stream_body(request):
            body += piece
            if len(body) > most:
                break
    if len(body) > most:
        raise BodyTooLargeError(f"expected at most {most} bytes of body", hint=hint)
    return bytes(body)


async def read_fields(request: web.Request, kind: type[T], expected: str, *, empty: bytes = b"") -> T:
    """Return the fields of a request's JSON body, which has no events.

    Args:
        request: The request.
        kind: The struct that the body is decoded as.
        expected: The form of the body, for the error.
        empty: The JSON that an empty body stands for.

    Raises:
        BodyInvalidError: The body does not have these fields.
        RequestError: The body cannot be read, see `read_body`.
    """
    body = await read_body(request, MAX_FIELDS_BYTES)
    try:
        return read_whole(msgspec.json.Decoder(kind).decode, body or empty)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BodyInvalidError(f"expected {expected}, got: {error}") from None


async def stream_body(request: web.Request) -> AsyncIterator[bytes]:
    """Yield a request's body in pieces, decompressed.

    Raises:
        BodyTooLargeError: The body exceeds the limit on its compression ratio.
        EncodingInvalidError: The body does not have the coding of `Content-Encoding`.
        EncodingUnknownError: The coding is not supported.
        RequestInvalidError: The body's HTTP framing is broken.
    """
    named = ",".join(request.headers.getall(hdrs.CONTENT_ENCODING, [])).strip().lower()
    pieces = _received(request)
    if named in ("", "identity"):
        async for piece in pieces:
            yield piece
    elif named in ("x-gzip", *CODINGS):
        async for piece in _inflated(pieces, named):
            yield piece
    else:
        raise EncodingUnknownError(f"expected Content-Encoding {' or '.join(CODINGS)}, got {named[:40]!r}")


async def _received(request: web.Request) -> AsyncIterator[bytes]:
    try:
        async for piece in request.content.iter_any():
            yield piece
    except web.RequestPayloadError:
        raise RequestInvalidError("expected a body in valid HTTP/1.1 framing, got broken framing") from None


async def _inflated(pieces: AsyncIterator[bytes], coding: str) -> AsyncIterator[bytes]:
    inflate: zlib._Decompress | None = None
    received = made = members = 0
    async for piece in pieces:
        received += len(piece)
        rest = piece
        while rest:
            if inflate is None:
                members += 1
                if members > _MOST_MEMBERS:
                    raise EncodingInvalidError(
                        f"expected at most {_MOST_MEMBERS} members in a body in the coding gzip, got more",
                        hint="Compress the body as a whole, not in many pieces.",
                    )
                inflate = zlib.decompressobj(_window(coding, rest))
            try:
                out = inflate.decompress(rest, _PIECE_BYTES)
            except zlib.error as error:
                raise EncodingInvalidError(f"expected a body in the coding {coding}, got: {error}") from None
            rest = inflate.unconsumed_tail or inflate.unused_data
            if inflate.eof:
                if rest and coding == "deflate":
                    raise EncodingInvalidError("expected nothing after the end of a body in the coding deflate")
                inflate = None  # a gzip body may consist of several members
            made += len(out)
            if made > max(_UNRATED_BYTES, received * _MOST_RATIO):
                raise BodyTooLargeError(f"expected a body that inflates to at most {_MOST_RATIO} times its size")
            yield out
            await asyncio.sleep(0)
    if inflate is not None or not received:
        raise EncodingInvalidError(f"expected a whole body in the coding {coding}, got a truncated one")


def _window(coding: str, start: bytes) -> int:
    """Return zlib's `wbits` for a coding; clients send `deflate` with and without zlib's header."""
    if coding != "deflate":
        return _GZIP
    return zlib.MAX_WBITS if start[0] & 0xF == 8 else -zlib.MAX_WBITS
