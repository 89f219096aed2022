"""`SessionClient`: one gateway, and which sessions it has."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import msgspec

from wakeline.client.http import Http, Token
from wakeline.client.session import Session
from wakeline.client.structs import Run, SessionState
from wakeline.client.values import encode

if TYPE_CHECKING:
    from temporalio.converter import DataConverter, PayloadCodec

_DEFAULT_URL: Final = "http://127.0.0.1:7777"


class _Sessions(msgspec.Struct):
    sessions: list[SessionState]
    after: str | None


class SessionClient:
    """A client of one gateway.

        async with SessionClient() as client:
            async for event in client.session("order-1").events(until="settled"):
                print(event.topic, event.data)

    Connections are made when they are needed. `async with`, or `aclose`, closes them.

    Args:
        url: Where the gateway is; `WAKELINE_URL` in the environment by default, else `http://127.0.0.1:7777`.
        token: Who is asking; `WAKELINE_TOKEN` in the environment by default, else nobody. A function, plain or async, is
            asked for a token at first and whenever the last one has expired; it is called in the event loop.
        data_converter: Decodes Temporal payloads that are not JSON, such as encrypted ones; `temporalio`'s own class. Without
            it an event has them as `payload`, as they came.
        codec: A payload codec in the place of the data converter's, such as a `RemoteCodec`; with it alone, values are
            converted as Temporal does by default.
        silence: How long an answer may say nothing, keep-alives included, before it is taken for dead.
        retry_timeout: How long a publish under a publisher's name is sent again when its outcome is unknown.
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
        url = url or os.environ.get("WAKELINE_URL") or _DEFAULT_URL
        self._http = Http(url, token or os.environ.get("WAKELINE_TOKEN") or None, silence)
        self._data_converter = data_converter if codec is None else _with_codec(data_converter, codec)
        self._codec = codec
        self._retry_timeout = retry_timeout

    @property
    def url(self) -> str:
        """Where the gateway is."""
        return self._http.url

    def session(self, name: str) -> Session:
        """A handle on a session, whether or not it is there.

        Args:
            name: Its name: a Workflow Id, unless its publisher chose another.

        Raises:
            SessionNameInvalidError: No session can have this name.
        """
        return Session(self._http, name, self._data_converter, self._retry_timeout)

    async def sessions(self, *, after: str = "") -> AsyncIterator[SessionState]:
        """Every session that the token reaches, by name.

        Args:
            after: Only those whose names come after this one.
        """
        start: str | None = after
        while start is not None:
            page = await self._http.call("GET", "/v1/sessions", _Sessions, query={"after": start})
            for state in page.sessions:
                yield state
            start = page.after

    async def register(
        self, workflow_id: str, *, session: str | None = None, namespace: str | None = None, result: bool = False
    ) -> Run:
        """Have a workflow followed from now on, with or without devices, until it ends.

        Args:
            workflow_id: The workflow's id.
            session: Where its output goes; None is the session that its memo `wakeline.session` names, or that of its own name.
            namespace: Its namespace; None is the gateway's main one.
            result: Have `$run.closed` tell what it completes with.

        Raises:
            WorkflowNotFoundError: Temporal knows no such workflow.
            TemporalUnavailableError: The gateway cannot reach Temporal, or runs without.
        """
        named = {"session": session, "namespace": namespace, "result": result or None}
        asked = {"workflow_id": workflow_id} | {name: value for name, value in named.items() if value is not None}
        headers = {"Content-Type": "application/json"}
        return await self._http.call("POST", "/v1/runs", Run, headers=headers, body=lambda: encode(asked))

    async def aclose(self) -> None:
        """Close every connection, for good."""
        await self._http.aclose()
        closing = getattr(self._codec, "aclose", None)  # not every codec has connections
        if closing is not None:
            await closing()

    async def __aenter__(self) -> Self:
        """Nothing: connections are made when they are needed."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close every connection."""
        await self.aclose()


def _with_codec(converter: DataConverter | None, codec: PayloadCodec) -> DataConverter:
    from temporalio.converter import DataConverter  # importing it takes a while, and few need it

    return replace(converter or DataConverter.default, payload_codec=codec)
