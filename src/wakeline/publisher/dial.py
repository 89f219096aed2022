"""Opens the WebSocket to the gateway: token, handshake, refusals as errors of their code."""

from __future__ import annotations

from typing import Final

import aiohttp

from wakeline.client.errors import refusal
from wakeline.client.http import LOST, Token, Tokens, read_refusal
from wakeline.client.reach import GIVE_TOKEN, advised, checked_url, not_a_gateway, noted, unavailable, unsendable
from wakeline.errors import TokenMissingError, UnavailableError, WakelineError

_CONNECT_SECONDS: Final = 10.0
_HEARTBEAT_SECONDS: Final = 15.0
_PATH: Final = "/v1/publish"
_TEMPORARY: Final = frozenset({408, 425, 429})
_LET_TOKEN_THROUGH: Final = "Check that every proxy on the way to the gateway forwards the header Authorization."


class Dial:
    """Opens WebSockets to one gateway.

    Args:
        url: The gateway's URL.
        token: The publisher's token.
    """

    def __init__(self, url: str, token: Token | None) -> None:
        self.url = checked_url(url)
        self._tokens = Tokens(token)
        self._token: str | None = None
        self._http: aiohttp.ClientSession | None = None

    async def open(self) -> aiohttp.ClientWebSocketResponse:
        """Open a new WebSocket.

        Raises:
            UnavailableError: The gateway cannot be reached, or is unavailable for now.
            RefusedError: The gateway refused the connection.
        """
        again = False
        while True:
            try:
                token = self._token = await self._tokens.get()
            except Exception as error:
                raise UnavailableError(f"expected a token from token=…, it raised {error!r}") from error
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            try:
                # The handshake has a timeout of its own: a gateway may accept the connection and never answer.
                return await self._connect(headers)
            except aiohttp.WSServerHandshakeError as error:
                if error.status >= 500:
                    raise self.lost(error) from None
                refused = advised(await self._why(error.status, headers), token, "publish")
            except LOST as error:
                raise not_a_gateway(self.url, error) or self.lost(error) from None
            except ValueError as error:
                raise unsendable(self.url, error) from error
            if refused.status in _TEMPORARY:
                raise UnavailableError(refused.message, **refused.details) from refused
            if refused.status != 401 or not self._tokens.expired(token) or again:
                raise refused
            again = True

    def token_wanted(self, *, again: bool) -> WakelineError | None:
        """Return why a retry would fail after the gateway asked for a token; None if it may succeed.

        Args:
            again: The gateway closed the previous connection in the same way, right after it was open.
        """
        if self._token is None:
            error = {
                "code": TokenMissingError.code,
                "message": "expected a token, got none: the gateway requires one to publish",
                "hint": GIVE_TOKEN.format("publish"),
            }
            return noted(refusal(401, error), self.url)
        self._tokens.expired(self._token)  # the next connection uses a fresh one, if there is one
        if again:
            said = "expected the gateway to receive the token that was sent, it received none"
            error = {"code": TokenMissingError.code, "message": said, "hint": _LET_TOKEN_THROUGH}
            return noted(refusal(401, error), self.url)
        return None

    def lost(self, error: BaseException | str) -> UnavailableError:
        """Return the error of a connection that cannot be made, or broke."""
        return unavailable(self.url, error)

    async def close(self) -> None:
        """Close the HTTP client."""
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def _connect(self, headers: dict[str, str]) -> aiohttp.ClientWebSocketResponse:
        if self._http is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_CONNECT_SECONDS)
            self._http = aiohttp.ClientSession(timeout=timeout)
        return await self._http.ws_connect(
            self.url + _PATH,
            headers=headers,
            heartbeat=_HEARTBEAT_SECONDS,
            max_msg_size=0,
            timeout=aiohttp.ClientWSTimeout(ws_close=1.0),  # pyright: ignore[reportCallIssue] # attrs makes it
        )

    async def _why(self, status: int, headers: dict[str, str]) -> WakelineError:
        """Return why the gateway refused; aiohttp drops the handshake's body, so ask without one."""
        assert self._http is not None
        try:
            answer = await self._http.get(self.url + _PATH, headers=headers)
            if answer.status == status:
                return await read_refusal(answer)
            answer.release()
        except LOST as error:
            raise self.lost(error) from None
        return noted(refusal(status, {"message": f"the gateway refused the connection with {status}"}), self.url)
