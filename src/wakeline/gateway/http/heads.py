"""Checks the heads of requests: their size and their encoding."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from aiohttp import web

from wakeline.errors import RequestInvalidError
from wakeline.gateway.access import MAX_HEAD_BYTES


def check_head(request: web.BaseRequest) -> None:
    """Raise unless a request's head has a valid size and encoding.

    The connection counts the bytes of a head that arrives on its own. The size of a head that arrives together with the
    previous request, or that has many small headers, is known only after parsing.

    Raises:
        RequestInvalidError: The head exceeds 32 KiB, or a header, the path or the query is not UTF-8.
    """
    size = len(request.raw_path)
    for name, value in request.raw_headers:
        size += len(name) + len(value) + 4
        if not value.isascii():
            _check_utf8(name, value)
    if size > MAX_HEAD_BYTES:
        raise RequestInvalidError(
            f"expected at most {MAX_HEAD_BYTES} bytes of headers, got {size}",
            hint="Send fewer or shorter headers; large data belongs in the body.",
        )
    if not request.raw_path.isascii():
        raise RequestInvalidError(
            "expected a path in ASCII, got other characters", hint="Percent-encode the UTF-8 of names and parameters."
        )
    if "%" in request.raw_path:
        _check_escapes(request.raw_path)


def _check_escapes(path: str) -> None:
    # aiohttp keeps an escape that is not UTF-8 undecoded: `%FF` would name the same session as `%25FF`.
    text = unquote_to_bytes(path)
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise RequestInvalidError(
            f"expected a path and a query in percent-encoded UTF-8, got %{text[error.start]:02X} in {path[:128]!r}",
            hint="Percent-encode the UTF-8 of names and parameters.",
        ) from None


def _check_utf8(name: bytes, value: bytes) -> None:
    try:
        value.decode()
    except UnicodeDecodeError as error:
        header = name.decode("ascii", errors="replace")
        raise RequestInvalidError(
            f"expected {header} in UTF-8, got byte 0x{value[error.start]:02x} at {error.start}",
            hint="Encode the header's value as UTF-8.",
        ) from None
