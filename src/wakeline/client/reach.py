"""Errors of calls to a gateway, from its answers and from failed connections.

Viewers may see the messages of an activity's failure and its causes. Hence neither has the gateway's URL, and aiohttp's error is
not a cause. The URL is in the errors' notes, which tracebacks and the commands print.
"""

from __future__ import annotations

import os
import re
from typing import Final, TypeVar

import aiohttp
from yarl import URL

from wakeline.client.errors import NOT_A_GATEWAY, refusal
from wakeline.errors import (
    RequestInvalidError,
    TokenExpiredError,
    TokenInvalidError,
    TokenMissingError,
    UnavailableError,
    WakelineError,
)

E = TypeVar("E", bound=WakelineError)
GIVE_TOKEN: Final = (
    "Pass token=… (--token), or set WAKELINE_TOKEN; "
    "`wakeline token --user NAME --session SESSION --allow {}` prints one."
)
_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")


def checked_url(url: str) -> str:
    """Return a gateway's URL without a slash at its end.

    Raises:
        RequestInvalidError: The URL is invalid.
    """
    try:
        parsed = URL(url)
        good = parsed.scheme in ("http", "https") and bool(parsed.host) and parsed.port is not None
    except ValueError:
        good = False
    if not good:
        raise noted(
            RequestInvalidError(
                "expected a URL such as http://127.0.0.1:7777, got another text",
                hint="Pass http:// or https://, the host and, unless it is the default, the port, in url=… (--url) or "
                "WAKELINE_URL.",
            ),
            url,
        )
    return url.rstrip("/")


def unavailable(url: str, error: BaseException | str) -> UnavailableError:
    """Return the error of a connection that cannot be made, or broke."""
    return noted(UnavailableError(f"the gateway cannot be reached: {reason(error)}"), url)


def unsendable(url: str, error: ValueError) -> RequestInvalidError:
    """Return the error of a URL or token that no HTTP request can hold; it is not retried."""
    said = f"expected a URL and a token that fit into an HTTP request, got others: {str(error).rstrip('.')}"
    hint = "Correct url=… (--url, WAKELINE_URL) and token=… (--token, WAKELINE_TOKEN): a token is one line, without spaces."
    return noted(RequestInvalidError(said, hint=hint), url)


def not_a_gateway(url: str, error: BaseException) -> WakelineError | None:
    """Return the refusal of a server that does not answer in HTTP; None for another error."""
    if not isinstance(error, aiohttp.ClientResponseError) or isinstance(error, aiohttp.WSServerHandshakeError):
        return None
    message = "expected a Wakeline gateway, got an answer that is not HTTP"
    return noted(refusal(error.status, {"message": message, "hint": NOT_A_GATEWAY}), url)


def noted(error: E, url: str) -> E:
    """Return the error with a note of the gateway's URL."""
    error.add_note(f"the gateway: {url}")
    return error


def advised(refused: WakelineError, token: str | None, action: str) -> WakelineError:
    """Return a refusal with a hint about where this side's token came from.

    Args:
        refused: The gateway's refusal.
        token: The token that was sent, if any.
        action: The action that needs it, as `wakeline token --allow` names it.
    """
    if token is None:
        if isinstance(refused, TokenMissingError):
            refused.hint = GIVE_TOKEN.format(action)
        return refused
    source = "WAKELINE_TOKEN" if token == os.environ.get("WAKELINE_TOKEN", "").strip() else "token=… (--token)"
    if isinstance(refused, TokenExpiredError):
        refused.hint = (
            f"The token came from {source}: put a fresh one there, or pass a function as token=… that returns one."
        )
    elif isinstance(refused, TokenInvalidError):
        refused.hint = f"The token came from {source}. {refused.hint}"
    return refused


def reason(error: BaseException | str) -> str:
    """Return the reason of a failure, without the address in aiohttp's messages."""
    if isinstance(error, str):
        return error
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return f"it answered {error.status}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "TLS failed: its certificate is not trusted here"
    if isinstance(error, aiohttp.ClientSSLError):
        return "TLS failed (a gateway itself speaks plain HTTP: http://, unless a proxy does TLS)"
    found = _ERRNO.search(str(error))
    number = getattr(getattr(error, "os_error", error), "errno", None) or (int(found[1]) if found else None)
    if number is not None and number > 0:
        return os.strerror(number).lower()
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection was cut in the middle of an answer"
    return type(error).__name__
