"""Routes that publish events: one request for a batch, or a WebSocket for many publishers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Final
from urllib.parse import unquote

import msgspec
from aiohttp import web
from msgspec import Meta

from wakeline.errors import BodyInvalidError, RequestInvalidError, StorageFailedError
from wakeline.gateway.access import ANYONE, GRANT, NOBODY, PUBLISHING_HEADERS, Grant
from wakeline.gateway.delivery import check_publisher, decode_json, decode_ndjson
from wakeline.gateway.http.answers import json_answer
from wakeline.gateway.http.bodies import read_body, read_fields
from wakeline.gateway.http.group import Group, route
from wakeline.gateway.http.parts import Parts
from wakeline.gateway.log import Publication
from wakeline.gateway.sessions import NamedWorkflow, Registrations, named_workflow
from wakeline.gateway.transports.feed_socket import RESTARTS
from wakeline.gateway.transports.leaving import LEAVING
from wakeline.gateway.transports.publishing import PublishConnection, check_topics

MAX_SEQUENCE: Final = 2**53 - 1  # the largest integer that every JSON parser represents exactly

_DECODERS: Final = {"application/json": decode_json, "application/x-ndjson": decode_ndjson}


class _Opening(msgspec.Struct, forbid_unknown_fields=True):
    attempt: Annotated[int, Meta(ge=1, le=MAX_SEQUENCE)] = 1
    run: str | None = None
    activity: str | None = None
    supersede: bool | None = None
    workflow: str | None = None
    namespace: str | None = None
    epoch: str | None = None


class PublishRoutes(Group):
    """`/v1/sessions/{session}/events` and `…/publishers/{publisher}`, and `/v1/publish`."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        upstream = parts.upstream
        self._registrations = Registrations(None if upstream is None else upstream.published, parts.runs.names.find)
        self._nudge = None if upstream is None else upstream.nudge

    @route("POST", "/v1/sessions/{session}/events")
    async def publish(self, request: web.Request) -> web.Response:
        """Append a batch of events."""
        name, grant = request.match_info["session"], request[GRANT]
        grant.check("publish", name)
        _check_headers(request.headers, PUBLISHING_HEADERS)
        decode = _DECODERS.get(request.content_type)
        if decode is None:
            raise BodyInvalidError(
                f"expected Content-Type application/json or application/x-ndjson, got {request.content_type!r}",
                hint="Send one JSON object as application/json, or one event a line as application/x-ndjson.",
            )
        incoming = await decode(await read_body(request), self._parts.settings.max_batch_events)
        check_topics(grant, incoming)
        self._parts.limits.publish(request, grant, len(incoming))
        run = await self._registrations.run_of(name, _text(request.headers, "Wakeline-Run"))
        who, workflow = publication(request.headers, run, grant), _workflow(request.headers)
        with self._parts.metrics.append_seconds.time():
            try:
                appended = await self._parts.accept.publish(name, incoming, who)
            except StorageFailedError as error:
                raise error.for_publisher(idempotent=who is not None) from error
        self._registrations.tell(name, workflow, _text(request.headers, "Wakeline-Run"), grant, appended.epoch)
        return json_answer(appended)

    @route("PUT", "/v1/sessions/{session}/publishers/{publisher}")
    async def open(self, request: web.Request) -> web.Response:
        """Open a publisher's attempt."""
        name, grant = request.match_info["session"], request[GRANT]
        grant.check("publish", name)
        _check_headers(request.headers, ())
        asked = await read_fields(request, _Opening, '{"attempt": 1, "activity": "…"}')
        workflow = named_workflow(asked.workflow, asked.namespace)
        publisher = check_publisher(request.match_info["publisher"])
        who = Publication.of_attempt(
            publisher,
            asked.attempt,
            run=await self._registrations.run_of(name, asked.run),
            activity=asked.activity,
            supersede=asked.supersede,
            owner=grant.owner_of(publisher),
        )
        self._parts.limits.publish(request, grant, 1)
        opened = await self._parts.accept.open_attempt(name, who, epoch=asked.epoch)
        self._registrations.tell(name, workflow, asked.run, grant, opened.epoch)
        return json_answer(opened)

    @route("GET", "/v1/publish", allow_head=False)
    async def connect(self, request: web.Request) -> web.WebSocketResponse:
        """Serve many publishers over a WebSocket."""
        if request[GRANT] is not NOBODY:  # without a token in the head, each channel authenticates itself
            request[GRANT].check("publish")
        connection = PublishConnection(request, self._parts, request[GRANT], self._registrations, self._nudge)
        return await self._parts.lasting.serve(connection.serve(), partial(connection.stop, RESTARTS, LEAVING))


def _check_headers(headers: Mapping[str, str], known: Sequence[str]) -> None:
    """Refuse a request with a `Wakeline-…` header that the route does not read.

    A retry of a batch whose `Wakeline-Publisher` is misspelt would otherwise be appended again.

    Raises:
        RequestInvalidError: There is such a header.
    """
    unknown = [
        name for name in headers if name[:9].lower() == "wakeline-" and name.lower() not in map(str.lower, known)
    ]
    if unknown:
        hint = f"Write one of {', '.join(known)}." if known else "Send the publisher's data in the body."
        raise RequestInvalidError(
            f"expected no header {', '.join(unknown)[:200]}, which this route does not read", hint=hint
        )


def publication(headers: Mapping[str, str], run: str | None, grant: Grant = ANYONE) -> Publication | None:
    """Return the publication that makes a request's append idempotent; None without one.

    Args:
        headers: The request's headers.
        run: The run that they name.
        grant: The grant of the caller, who owns the publisher.

    Raises:
        RequestInvalidError: A header is missing or invalid.
    """
    publisher, sequence = headers.get("Wakeline-Publisher"), headers.get("Wakeline-Sequence")
    if publisher is None and sequence is None and "Wakeline-Attempt" not in headers:
        return None
    if publisher is None or sequence is None:
        raise RequestInvalidError(
            "expected Wakeline-Publisher and Wakeline-Sequence together, got one without the other"
        )
    supersede = headers.get("Wakeline-Supersede")
    if supersede not in ("true", "false", None):
        raise RequestInvalidError(f"expected Wakeline-Supersede to be true or false, got {supersede[:40]!r}")
    return Publication.of_attempt(
        check_publisher(publisher),
        _integer("Wakeline-Attempt", headers.get("Wakeline-Attempt") or "1", at_least=1),
        _integer("Wakeline-Sequence", sequence, at_least=0),
        run=run,
        activity=_text(headers, "Wakeline-Activity"),
        supersede=None if supersede is None else supersede == "true",
        owner=grant.owner_of(publisher),
    )


def _workflow(headers: Mapping[str, str]) -> NamedWorkflow | None:
    return named_workflow(_text(headers, "Wakeline-Workflow"), _text(headers, "Wakeline-Namespace"))


def _text(headers: Mapping[str, str], name: str) -> str | None:
    text = headers.get(name)
    try:
        return None if text is None else unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise RequestInvalidError(f"expected {name} to be percent-encoded UTF-8") from None


def _integer(name: str, text: str, *, at_least: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and at_least <= int(text) <= MAX_SEQUENCE):
        raise RequestInvalidError(f"expected {name} to be an integer from {at_least} to 2^53-1, got {text[:40]!r}")
    return int(text)
