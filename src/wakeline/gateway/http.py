"""The routes: parse, call, answer. PROTOCOL.md tells what each means."""

from __future__ import annotations

import asyncio
import math
from typing import Any, Final, Protocol

import msgspec
import structlog
from aiohttp import hdrs, web

from wakeline.errors import (
    BodyInvalidError,
    BodyTooLargeError,
    InternalError,
    MethodNotAllowedError,
    NotFoundError,
    RequestInvalidError,
    SessionNotFoundError,
    StorageFailedError,
    TemporalUnavailableError,
    WakelineError,
)
from wakeline.events import Cursor, check_session_name, check_topic
from wakeline.gateway.accept import Accept, decode_json, decode_ndjson, publication
from wakeline.gateway.guard import Guard, Handler
from wakeline.gateway.hub import Channel, Hub
from wakeline.gateway.log import Engine, SessionState
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.runs import Run, Runs
from wakeline.gateway.settings import Settings
from wakeline.gateway.transports import longpoll, sse

_MAX_WAIT: Final = 60.0
_log = structlog.get_logger(__name__)


class Upstream(Protocol):
    """What the routes ask of the part that follows workflows; there is none without Temporal."""

    async def watch(self, session: str) -> None:
        """A device is here: see that the workflow of this name, if there is one, is followed."""
        ...

    async def register(self, workflow_id: str, session: str) -> Run:
        """Follow a workflow into a session from now on."""
        ...

    def followed(self, run: str) -> bool:
        """Whether a run is being followed here."""
        ...

    def health(self) -> str:
        """`ok`, or what is wrong."""
        ...


class Routes:
    """The HTTP interface over the gateway's parts."""

    def __init__(
        self, settings: Settings, engine: Engine, accept: Accept, hub: Hub, runs: Runs, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._accept = accept
        self._hub = hub
        self._runs = runs
        self._metrics = metrics
        self._guard = Guard(settings.cors_origins)
        self._streams: set[asyncio.Task[Any]] = set()
        self.upstream: Upstream | None = None

    def application(self) -> web.Application:
        """The aiohttp application that serves the routes."""
        app = web.Application(
            client_max_size=self._settings.max_body_bytes, middlewares=[self._errors, self._guard.middleware]
        )
        app.on_response_prepare.append(self._guard.on_prepare)
        app.on_shutdown.append(self._end_streams)
        app.add_routes(
            [
                web.post("/v1/sessions/{session}/events", self.publish),
                web.get("/v1/sessions/{session}/events", self.events, allow_head=False),
                web.get("/v1/sessions/{session}", self.session),
                web.get("/v1/sessions", self.sessions),
                web.post("/v1/runs", self.register),
                web.get("/healthz", self.healthz),
                web.get("/readyz", self.readyz),
                web.get("/metrics", self.metrics),
            ]
        )
        return app

    async def publish(self, request: web.Request) -> web.Response:
        """Append a batch."""
        body = await request.read()
        if request.content_type == "application/x-ndjson":
            incoming = decode_ndjson(body)
        elif request.content_type == "application/json":
            incoming = decode_json(body)
        else:
            raise BodyInvalidError(
                f"expected Content-Type application/json or application/x-ndjson, got {request.content_type!r}"
            )
        headers = request.headers
        names = ("Wakeline-Publisher", "Wakeline-Attempt", "Wakeline-Sequence")
        who = publication(*(headers.get(name) for name in names))
        with self._metrics.append_seconds.time():
            appended = await self._accept.publish(request.match_info["session"], incoming, who)
        return _json(appended)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Read a session, as a stream or as a page."""
        name = check_session_name(request.match_info["session"])
        query = _Reading(request)
        if self.upstream is not None:
            await self.upstream.watch(name)
        async with self._hub.attach(name) as channel:
            offset = query.offset(channel)
            if not sse.wanted(request):
                return await longpoll.serve(
                    self._engine, channel, offset, topics=query.topics, limit=query.limit, wait=query.wait
                )
            if query.until_settled and channel.settled and offset == channel.tail:
                return web.Response(status=204)  # tells an EventSource to stop for good
            self._metrics.connections.inc()
            return await self._stream(request, channel, offset, query)

    async def _stream(self, request: web.Request, channel: Channel, offset: int, query: _Reading) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            return await sse.serve(
                request,
                self._engine,
                channel,
                offset,
                topics=query.topics,
                until_settled=query.until_settled,
                timeout=self._settings.write_timeout,
            )
        finally:
            self._streams.discard(task)

    async def session(self, request: web.Request) -> web.Response:
        """One session's state."""
        name = check_session_name(request.match_info["session"])
        state = await self._engine.state(name)
        if state is None and self.upstream is not None:
            await self.upstream.watch(name)
            state = await self._engine.state(name)
        if state is None:
            raise SessionNotFoundError(f"there is no session {name!r}")
        return _json(await self._described(state))

    async def sessions(self, request: web.Request) -> web.Response:
        """A page of sessions, by name."""
        limit = _integer(request, "limit", 100, 1, 1000)
        states = await self._engine.sessions(after=request.query.get("after", ""), limit=limit)
        return _json(
            {
                "sessions": [await self._described(state) for state in states],
                "after": states[-1].session if len(states) == limit else None,
            }
        )

    async def register(self, request: web.Request) -> web.Response:
        """Follow a workflow from now on."""
        try:
            asked = msgspec.json.decode(await request.read(), type=_Registration)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BodyInvalidError(f'expected {{"workflow_id": "…"}}, got: {error}') from None
        session = check_session_name(asked.session or asked.workflow_id)
        if self.upstream is None:
            raise TemporalUnavailableError("expected a gateway with Temporal, this one runs without")
        run = await self.upstream.register(asked.workflow_id, session)
        return _json({"session": session, **self._run(run)})

    async def healthz(self, _: web.Request) -> web.Response:
        """The process serves."""
        return _json({"status": "ok"})

    async def readyz(self, _: web.Request) -> web.Response:
        """Whether the log can be read, and how Temporal is."""
        temporal = self.upstream.health() if self.upstream else "off"
        try:
            await self._engine.get_record("readyz")
        except StorageFailedError as error:
            return _json({"status": "unready", "log": error.message, "temporal": temporal}, status=503)
        status = "ready" if temporal in ("ok", "off") else "degraded"
        return _json({"status": status, "log": "ok", "temporal": temporal})

    async def metrics(self, _: web.Request) -> web.Response:
        """Everything counted."""
        return web.Response(body=self._metrics.expose(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _described(self, state: SessionState) -> dict[str, Any]:
        runs = await self._runs.of(state.session)
        return {
            "session": state.session,
            "epoch": state.epoch,
            "next_offset": state.next_offset,
            "cursor": str(Cursor(state.epoch, state.next_offset)),
            "created": state.created,
            "closed": state.closed,
            "settled": bool(runs) and all(run.status != "running" for run in runs),
            "devices": self._hub.devices(state.session),
            "runs": [self._run(run) for run in runs],
        }

    def _run(self, run: Run) -> dict[str, Any]:
        followed = self.upstream is not None and self.upstream.followed(run.run)
        return {
            "workflow_id": run.workflow_id,
            "run": run.run,
            "run_id": run.run_id,
            "status": run.status,
            "followed": followed,
        }

    async def _end_streams(self, _: web.Application) -> None:
        """Cut every stream: its device resumes elsewhere, or here when we are back."""
        for task in list(self._streams):
            task.cancel()

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer every error in the one shape."""
        try:
            return await handler(request)
        except WakelineError as error:
            failure = error
        except web.HTTPRequestEntityTooLarge:
            failure = BodyTooLargeError(f"expected at most {self._settings.max_body_bytes} bytes of body")
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            failure = MethodNotAllowedError(f"expected one of {allowed}, got {request.method}")
        except web.HTTPException as error:
            failure = NotFoundError(f"there is no route {request.path!r} ({error.status})")
        except Exception:  # noqa: BLE001 - a defect is answered in the one shape too
            _log.exception("request failed", path=request.path)
            failure = InternalError("the server failed; this is a defect")
        self._metrics.refused.labels(failure.code).inc()
        return _json(failure.wire(), status=failure.status)


class _Registration(msgspec.Struct, forbid_unknown_fields=True):
    workflow_id: str
    session: str | None = None


class _Reading:
    """The parameters of a read."""

    def __init__(self, request: web.Request) -> None:
        self._from = request.headers.get("Last-Event-ID") or request.query.get("from", "beginning")
        topics = request.query.get("topics")
        self.topics = frozenset(check_topic(t, own=True) for t in topics.split(",")) if topics is not None else None
        until = request.query.get("until", "never")
        if until not in ("settled", "never"):
            raise RequestInvalidError(f"expected until=settled or until=never, got {until[:40]!r}")
        self.until_settled = until == "settled"
        self.limit = _integer(request, "limit", 1000, 1, 10_000)
        self.wait = _seconds(request, "wait")

    def offset(self, channel: Channel) -> int:
        """Where to read from."""
        if self._from == "beginning":
            return 0
        if self._from == "now":
            return channel.tail
        return Cursor.parse(self._from).offset_in(channel.epoch, channel.tail)


def _integer(request: web.Request, name: str, default: int, least: int, most: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise RequestInvalidError(f"expected {name} to be an integer from {least} to {most}, got {text[:40]!r}")
    return int(text)


def _seconds(request: web.Request, name: str) -> float:
    text = request.query.get(name, "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= _MAX_WAIT:
        raise RequestInvalidError(f"expected {name} to be 0 to {_MAX_WAIT:.0f} seconds, got {text[:40]!r}")
    return seconds


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value),
        status=status,
        content_type="application/json",
        headers={hdrs.CACHE_CONTROL: "no-store"},
    )
