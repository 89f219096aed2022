"""Requests for input from the answering side: the open ones of a session, and answers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Literal

import msgspec

from wakeline.client.http import Http, session_path
from wakeline.client.inputs import post, repeated
from wakeline.client.structs import InputRequest
from wakeline.client.values import encode
from wakeline.durations import seconds_of
from wakeline.errors import WakelineError


class _Requests(msgspec.Struct):
    requests: list[InputRequest]
    after: str | None = None


class Answering:
    """The part of a `Session` that answers requests for input."""

    name: str
    _http: Http
    _retry_seconds: float

    async def requests(self) -> list[InputRequest]:
        """Return the open requests for input of the session."""
        found: list[InputRequest] = []
        path, query = session_path(self.name, "requests"), ""
        while True:
            page = await self._http.call("GET", path + query, _Requests)
            found += page.requests
            if page.after is None:
                return found
            query = f"?after={page.after}"

    async def claim(self, request: str, *, device: str, lease: timedelta = timedelta(seconds=30)) -> InputRequest:
        """Claim a tool for this device, so that no other one runs it; claim again to keep it.

        Args:
            request: The request's id.
            device: The id of this device, which the answer has to name as well.
            lease: How long no other device can claim it.

        Raises:
            ClaimedError: Another device runs it.
            AlreadyResolvedError: The request is closed.
        """
        body = encode({"device": device, "lease": seconds_of(lease, "lease")})
        path = session_path(self.name, "requests", request, "claim")
        return await repeated(partial(post, self._http, path, body, InputRequest), self._retry_seconds)

    async def answer(
        self,
        request: str,
        payload: Any = None,
        *,
        status: Literal["resolved", "cancelled"] = "resolved",
        device: str | None = None,
        digest: str | None = None,
        expect: int | None = None,
        on_lost: Callable[[WakelineError], None] | None = None,
    ) -> InputRequest:
        """Answer a request for input; return it with its outcome.

        A gateway that cannot be reached is retried for up to the client's `retry_timeout`: the same answer again has no
        second effect.

        Args:
            request: The request's id.
            payload: The answer, a value that msgspec can encode as JSON.
            status: `cancelled` declines to answer, without a payload.
            device: The id of this device, for `$input.resolved`.
            digest: The digest of what was shown, if the request has one.
            expect: The offset of the last event that this device has seen.
            on_lost: Called with the reason when the gateway is retried.

        Raises:
            AlreadyResolvedError: The request is closed, and not by this answer; the error has the `outcome`.
            DigestChangedError: The digest is not that of the request.
            StaleError: Something was published after `expect`.
            ValueInvalidError: The payload is none that the request allows.
            UnavailableError: The gateway cannot be reached, and may have the answer.
        """
        given = {"device": device, "digest": digest, "expect": expect}
        asked = {"status": status, **{name: value for name, value in given.items() if value is not None}}
        body = encode(asked if status == "cancelled" else {**asked, "payload": payload})
        path = session_path(self.name, "requests", request)
        return await repeated(partial(post, self._http, path, body, InputRequest), self._retry_seconds, on_lost)
