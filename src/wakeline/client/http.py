"""Requests to one gateway, with the token; each refusal is raised as the error of its code."""

from __future__ import annotations

import asyncio
import inspect
import os
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import quote, urlencode
from weakref import WeakSet

import aiohttp
import msgspec
from yarl import URL

from wakeline.client.closing import Closing
from wakeline.client.errors import refusal
from wakeline.client.reach import advised, checked_url, not_a_gateway, unavailable, unsendable
from wakeline.durations import seconds_of
from wakeline.errors import TokenExpiredError, UnavailableError, WakelineError
from wakeline.events import check_session_name
from wakeline.logs import get_logger
from wakeline.outages import Outage

Token: TypeAlias = str | Callable[[], str] | Callable[[], Awaitable[str]]
"""A token, or a function that returns one, called in the event loop when the last one has expired."""

T = TypeVar("T")
logger = get_logger(__name__)
LOST: Final = (aiohttp.ClientError, TimeoutError, OSError)
_DEFAULT_URL: Final = "http://127.0.0.1:7777"
_CONNECT_SECONDS: Final = 10.0
_GATEWAY_GONE: Final = frozenset({502, 503, 504})


def gateway_url(url: str | None) -> str:
    """Return the gateway's URL: the given one, or that of the environment, or the default."""
    return url or os.environ.get("WAKELINE_URL") or _DEFAULT_URL


def gateway_token(token: Token | None) -> Token | None:
    """Return the token: the given one, or that of the environment; empty is none."""
    return os.environ.get("WAKELINE_TOKEN") or None if token is None else token or None


def session_path(name: str, *below: str) -> str:
    """Return the path of a session, or of a resource below it.

    Raises:
        SessionNameInvalidError: The name is invalid.
    """
    return "/".join(["/v1/sessions", _segment(check_session_name(name)), *map(_segment, below)])


def _segment(text: str) -> str:
    return quote(text, safe="") if text not in (".", "..") else text.replace(".", "%2E")


def _action(method: str, path: str) -> str:
    """Return the options of `wakeline token` that a request needs."""
    if method in ("GET", "HEAD"):
        return "read"
    return "input --input NAME" if path.endswith("/inputs") else "publish"


class Http(Closing):
    """The HTTP client of one gateway; connections are made when they are needed.

    Args:
        url: The gateway's URL.
        token: The token.
        silence: The longest time without a byte of an answer before its connection counts as lost.
    """

    def __init__(self, url: str, token: Token | None, silence: timedelta) -> None:
        self.url = checked_url(url)
        # One for all streams of a client, since an outage of the gateway affects all of them.
        self.outage = Outage(logger, f"Reading from the gateway at {self.url}")
        self._tokens = Tokens(token)
        self._silence = seconds_of(silence, "silence")
        self._connections: aiohttp.ClientSession | None = None
        self._answers: WeakSet[aiohttp.ClientResponse] = WeakSet()
        self._closed = False

    async def open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Any] | None = None,
        wait: float = 0.0,
    ) -> aiohttp.ClientResponse:
        """Send a request and return the answer with its headers; the caller reads its body.

        Args:
            method: The HTTP method.
            path: The path, encoded.
            query: The query's parameters.
            headers: Headers besides `Authorization`.
            body: Returns the body; called again if the request is sent again.
            wait: The seconds for which the request lets the gateway wait, added to the time without a byte.

        Raises:
            RefusedError: The gateway refused the request.
            UnavailableError: The gateway cannot be reached.
        """
        url = URL(f"{self.url}{path}" + (f"?{urlencode(query)}" if query else ""), encoded=True)
        timeout = aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=self._silence + wait)
        again = False
        while True:
            token = await self._tokens.get()
            authorization = {} if token is None else {"Authorization": f"Bearer {token}"}
            data = body() if body else None
            try:
                answer = await self._open_connections().request(
                    method, url, headers={**(headers or {}), **authorization}, data=data, timeout=timeout
                )
                if answer.status < 400:
                    self._answers.add(answer)
                    return answer
                refused = advised(await read_refusal(answer), token, _action(method, path))
            except LOST as error:
                raise not_a_gateway(self.url, error) or self.lost(error) from None
            except ValueError as error:
                raise unsendable(self.url, error) from error
            if not isinstance(refused, TokenExpiredError) or not self._tokens.expired(token) or again:
                raise refused
            again = True

    async def call(self, method: str, path: str, type: type[T], **how: Any) -> T:
        """Send a request and return the answer's JSON as `type`; `how` is as for `open`.

        Raises:
            RefusedError: The gateway refused the request.
            UnavailableError: The gateway cannot be reached, or the connection broke before the end of the answer.
        """
        async with await self.open(method, path, **how) as answer:
            try:
                body = await answer.read()
            except LOST as error:
                raise self.lost(error) from None
        try:
            return msgspec.json.decode(body, type=type)
        except msgspec.DecodeError as error:
            message = f"expected JSON from the gateway, got {answer.status} with {body[:80]!r}: {error}"
            raise refusal(answer.status, {"message": message}) from error

    async def do(self, method: str, path: str, **how: Any) -> None:
        """Send a request and ignore the answer's body; `how` and errors are as for `open`."""
        async with await self.open(method, path, **how):
            pass

    def may_filter(self) -> bool:
        """Return whether the gateway may leave out events because the token has only some topics."""
        return self._tokens.may_filter()

    def lost(self, error: BaseException) -> UnavailableError:
        """Return the error of a connection that cannot be made, or broke."""
        return unavailable(self.url, error)

    async def aclose(self) -> None:
        """Close all connections; reads in progress raise, and later calls are refused."""
        self._closed = True
        for answer in list(self._answers):
            answer.close()
        if self._connections is not None:
            await self._connections.close()

    def require_open(self) -> None:
        """Check that the client is open.

        Raises:
            RuntimeError: The client was closed.
        """
        if self._closed:
            raise RuntimeError("expected an open client, got a closed one: make another one")

    def _open_connections(self) -> aiohttp.ClientSession:
        self.require_open()
        if self._connections is None:
            # No limit: each stream holds its connection for as long as it is read.
            self._connections = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self._connections


class Tokens:
    """The token in use; concurrent requests share one call for a fresh one."""

    def __init__(self, source: Token | None) -> None:
        """Start with a token, or with a function that returns one."""
        self._source = source
        self._token: str | None = None
        self._asking = asyncio.Lock()

    async def get(self) -> str | None:
        """Return the token to send; None to send none."""
        if self._source is None or isinstance(self._source, str):
            return _bare(self._source)
        async with self._asking:
            if self._token is None:
                given = self._source()
                self._token = _bare(await given if inspect.isawaitable(given) else given)
            return self._token

    def expired(self, token: str | None) -> bool:
        """Discard an expired token; return whether there may be a fresh one."""
        if token == self._token:  # otherwise another task has replaced it already
            self._token = None
        return callable(self._source)

    def may_filter(self) -> bool:
        """Return whether the token in use may be limited to some topics."""
        token = self._source if isinstance(self._source, str) else self._token
        if token is None:
            return False
        try:
            claims = token.split(".")[1]
            decoded = urlsafe_b64decode(claims + "=" * (-len(claims) % 4))
            return msgspec.json.decode(decoded, type=_Claims).wakeline.topics is not None
        except (IndexError, ValueError, msgspec.DecodeError):
            return True  # not a readable token: it may be limited


def _bare(token: str | None) -> str | None:
    # A token read from a file or a secret often ends with a newline, which no header can hold.
    return token.strip() or None if token is not None else None


class _Limits(msgspec.Struct, frozen=True):
    topics: Any = None


class _Claims(msgspec.Struct, frozen=True):
    wakeline: _Limits = _Limits()


async def read_refusal(answer: aiohttp.ClientResponse) -> WakelineError:
    """Return the error of an answer whose status is a refusal."""
    async with answer:
        body = await answer.read()
    error: dict[str, Any] = {}
    try:
        error = msgspec.json.decode(body, type=dict[str, dict[str, Any]])["error"]
    except (msgspec.DecodeError, KeyError):
        error["message"] = f"expected JSON from the gateway, got {answer.status} with {body[:80]!r}"
        if answer.status in _GATEWAY_GONE:
            error |= {"code": UnavailableError.code, "hint": UnavailableError.hint}
    after = answer.headers.get("Retry-After", "")
    if after.isascii() and after.isdigit():
        error.setdefault("retry_after", int(after))
    return refusal(answer.status, error)
