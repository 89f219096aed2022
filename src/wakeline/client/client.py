"""`SessionClient`: one gateway and its sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from wakeline.client.closing import Closing
from wakeline.client.http import Http, Token, gateway_token, gateway_url
from wakeline.client.session import Session
from wakeline.client.structs import Run, SessionState
from wakeline.client.values import encode

if TYPE_CHECKING:
    from temporalio.converter import DataConverter, PayloadCodec


class _Sessions(msgspec.Struct):
    sessions: list[SessionState]
    after: str | None


class SessionClient(Closing):
    """A client of one gateway.

        async with SessionClient() as client:
            async for event in client.session("order-1").events(until="settled"):
                print(event.topic, event.data)

    Connections are made when they are needed. The end of the `async with` block, or `aclose`, closes them.

    Args:
        url: The gateway's URL; `WAKELINE_URL` in the environment by default, else `http://127.0.0.1:7777`.
        token: The token, or a function, plain or async, that returns one; `WAKELINE_TOKEN` in the environment by default. An
            empty one is none, also if the environment has one. A function is called in the event loop before the first
            request and whenever the last token has expired.
        data_converter: Decodes Temporal payloads that are not JSON, such as encrypted ones; `temporalio`'s own class.
            Without it an event has them unchanged, as `payload`.
        codec: A payload codec that replaces the data converter's, such as a `RemoteCodec`. Without a data converter,
            Temporal's default one converts values.
        silence: The longest time without a byte of an answer, keep-alives included, before its connection counts as
            lost; 45 s by default.
        retry_timeout: How long a publish with a publisher and a sequence is retried while its outcome is unknown; 30 s
            by default.

    Raises:
        RequestInvalidError: The URL is invalid.
    """

    def __init__(
        self,
        url: str | None = None,
        token: Token | None = None,
        *,
        data_converter: DataConverter | None = None,
        codec: PayloadCodec | None = None,
        silence: timedelta = timedelta(seconds=45),
        retry_timeout: timedelta = timedelta(seconds=30),
    ) -> None:
        self._http = Http(gateway_url(url), gateway_token(token), silence)
        self._data_converter = data_converter if codec is None else _with_codec(data_converter, codec)
        self._codec = codec
        self._retry_timeout = retry_timeout

    @property
    def url(self) -> str:
        """The gateway's URL."""
        return self._http.url

    def session(self, name: str) -> Session:
        """Return a handle on a session, whether or not it exists.

        Args:
            name: Its name: a Workflow Id, unless its publisher chose another.

        Raises:
            SessionNameInvalidError: The name is invalid.
        """
        return Session(self._http, name, self._data_converter, self._retry_timeout)

    async def sessions(self, *, after: str = "") -> AsyncIterator[SessionState]:
        """Yield the state of every session that the token reaches, by name.

        Args:
            after: Yield only sessions whose names sort after this one.
        """
        start: str | None = after
        while start is not None:
            page = await self._http.call("GET", "/v1/sessions", _Sessions, query={"after": start})
            for state in page.sessions:
                yield state
            start = page.after

    async def register(
        self,
        workflow_id: str,
        *,
        session: str | None = None,
        namespace: str | None = None,
        result: bool = False,
        activity: bool = False,
    ) -> Run:
        """Follow a workflow from now on, with or without devices, until it ends.

        Args:
            workflow_id: The Workflow Id.
            session: The session of its output; by default the one that its memo `wakeline.session` names, else its namesake.
            namespace: Its namespace; the gateway's main one by default.
            result: Whether `$run.closed` has the workflow's result.
            activity: Whether `workflow_id` is the id of an activity that no workflow scheduled.

        Raises:
            WorkflowNotFoundError: Temporal has no such workflow.
            TemporalUnavailableError: The gateway cannot reach Temporal, or has no connection to it.
        """
        named = {"session": session, "namespace": namespace, "result": result or None}
        named["kind"] = "activity" if activity else None
        asked = {"workflow_id": workflow_id} | {name: value for name, value in named.items() if value is not None}
        headers = {"Content-Type": "application/json"}
        return await self._http.call("POST", "/v1/runs", Run, headers=headers, body=lambda: encode(asked))

    async def aclose(self) -> None:
        """Close every connection, for good."""
        await self._http.aclose()
        closing = getattr(self._codec, "aclose", None)  # not every codec has connections
        if closing is not None:
            await closing()


def _with_codec(converter: DataConverter | None, codec: PayloadCodec) -> DataConverter:
    from temporalio.converter import DataConverter  # slow to import, and few programs need it

    return replace(converter or DataConverter.default, payload_codec=codec)
