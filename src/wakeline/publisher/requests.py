"""Requests for input: a publisher asks people something, and waits for the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, TypedDict
from uuid import uuid4

from wakeline.client.http import Http, Token, session_path
from wakeline.client.inputs import until_known
from wakeline.client.structs import InputRequest, RequestOutcome
from wakeline.durations import seconds_of
from wakeline.publisher.frames import Identity

_SILENCE = timedelta(seconds=45)


class Asking(TypedDict, total=False):
    """Arguments of `SessionPublisher.request`.

    Attributes:
        id: The request's key, 1 to 128 visible ASCII characters; by default a new one.
        kind: `tool`: one device at a time claims the request and answers with the tool's value. `question` by default.
        message: The question, for people.
        choices: The possible answers.
        response_schema: In place of `choices`, the JSON Schema of an answer.
        expires: How long it can be answered; for ever by default.
        audience: The users, and roles as `role:NAME`, who may answer; all by default.
        digest: Names what the request is about, such as a hash of a tool's arguments; an answer has to repeat it.
        tool_call_id: The tool call that it belongs to.
        metadata: Further data for the devices.
        needs: The number of people who have to give the same answer; 1 by default.
    """

    id: str | None
    kind: Literal["question", "tool"]
    message: str | None
    choices: Sequence[str] | None
    response_schema: Mapping[str, Any] | None
    expires: timedelta | None
    audience: str | Sequence[str] | None
    digest: str | None
    tool_call_id: str | None
    metadata: Mapping[str, Any] | None
    needs: int


class AskedRequest:
    """A request for input that this publisher has asked; `SessionPublisher.request` returns one.

    Attributes:
        request: The request as the gateway answered last.
    """

    def __init__(self, asker: Asker, asked: dict[str, Any], request: InputRequest) -> None:
        """See `SessionPublisher.request`."""
        self.request = request
        self._asker = asker
        self._asked = asked

    @property
    def id(self) -> str:
        """The request's key."""
        return self.request.id

    async def outcome(self, *, wait: timedelta | None = None) -> RequestOutcome | None:
        """Wait until the request is closed, and return how; None if the wait ends first.

        Args:
            wait: The longest wait. By default there is no limit but the request's own expiry.

        Raises:
            UnavailableError: The gateway cannot be reached for longer than `max_retry_duration`.
        """
        if self.request.outcome is None:
            self.request = await self._asker.ask(self._asked, None if wait is None else seconds_of(wait, "wait"))
        return self.request.outcome

    async def cancel(self) -> None:
        """Close the request without an answer; harmless if it is closed without one.

        Raises:
            AlreadyResolvedError: It was answered.
        """
        self.request = await self._asker.cancel(self.id)


class Asker:
    """Asks in one session, over HTTP.

    Args:
        url: The gateway's URL.
        token: The publisher's token.
        identity: The publisher, whose run and activity ask.
        retry_seconds: How long a gateway that cannot be reached is tried again.
    """

    def __init__(self, url: str, token: Token | None, identity: Identity, retry_seconds: float) -> None:
        self._http = Http(url, token, _SILENCE)
        self._identity = identity
        self._retry_seconds = retry_seconds

    async def request(self, reason: str, asking: Asking) -> AskedRequest:
        """Ask; see `SessionPublisher.request`."""
        asked: dict[str, Any] = {**asking, "reason": reason, "id": asking.get("id") or str(uuid4())}
        expires, audience = asked.pop("expires", None), asking.get("audience")
        asked |= {"run": self._identity.run, "activity": self._identity.activity}
        asked["expires_in"] = None if expires is None else seconds_of(expires, "expires")
        asked["audience"] = [audience] if isinstance(audience, str) else audience
        asked = {name: value for name, value in asked.items() if value is not None}
        return AskedRequest(self, asked, await self.ask(asked, 0.0))

    async def ask(self, asked: dict[str, Any], wait_seconds: float | None) -> InputRequest:
        """Ask the same until the outcome is known, or the wait ends."""
        return await until_known(
            self._http,
            session_path(self._identity.session, "requests"),
            asked,
            InputRequest,
            lambda request: request.outcome is not None,
            wait_seconds=wait_seconds,
            retry_seconds=self._retry_seconds,
        )

    async def cancel(self, id: str) -> InputRequest:
        """Cancel a request."""
        return await self._http.call("DELETE", session_path(self._identity.session, "requests", id), InputRequest)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()
