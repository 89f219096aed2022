"""Sends a user's message, answers to requests for input, and a stop."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
from aiohttp import web
from msgspec import UNSET

from wakeline.errors import (
    AlreadyResolvedError,
    DigestChangedError,
    RequestNotFoundError,
    SessionNotFoundError,
    WorkflowNotFoundError,
)
from wakeline.gateway.access import Grant
from wakeline.gateway.inputs import Asked
from wakeline.gateway.requests import Answer, Life, Person, Requests
from wakeline.gateway.rules import Face
from wakeline.gateway.sessions import InputRequest, Kind, Settled
from wakeline.gateway.transports.faces.parts import Request
from wakeline.gateway.transports.feed import Source
from wakeline.gateway.transports.inputs import send_input

_WAIT: Final = "An answer begins with a message. If one was sent just now, stop once its answer begins to stream."
_ENDS: Final[dict[str, Kind]] = {"$cancel": "cancel", "$terminate": "terminate"}


class UserMessage(NamedTuple):
    """A user's message.

    Attributes:
        key: The input's key, which names the turn, too.
        id: The message's id, as its frontend made it.
        parts: What it has: `{"type": "text", "text"}`, `{"type": "file", "mediaType", "url", "filename"?}`, and others.
        options: Further members of the request, for the workflow.
    """

    key: str
    id: str
    parts: list[Any]
    options: dict[str, Any]

    @property
    def shown(self) -> dict[str, Any]:
        """The message as each device sees it."""
        texts = [part.get("text") for part in self.parts if isinstance(part, dict) and part.get("type") == "text"]
        text = "\n".join(each for each in texts if isinstance(each, str))
        return {"id": self.id, "role": "user", "text": text, "parts": self.parts}


class Given(NamedTuple):
    """An answer to a request for input, in the words of its protocol.

    Attributes:
        id: The request's id, or that of its tool call.
        is_call: Whether it may be a tool call's; one without an open request needs no answer.
        approved: Yes or no; None if it has a payload.
        reason: Why.
        payload: The answer, if it is no yes or no.
        cancelled: Whether the user declines to answer.
    """

    id: str
    approved: bool | None = None
    reason: str | None = None
    payload: Any = None
    cancelled: bool = False
    is_call: bool = False


async def say(
    source: Source, request: web.Request, grant: Grant, session: str, rule: Face, message: UserMessage
) -> None:
    """Send a user's message to the session's workflow, once for its key.

    Raises:
        WakelineError: It is refused.
    """
    shown = message.shown
    argument = {**shown, "turn": message.key} | ({"options": message.options} if message.options else {})
    asked = Asked(
        id=message.key,
        kind=rule.kind,
        name=rule.name,
        args=[msgspec.Raw(msgspec.json.encode(argument))],
        start=rule.start,
        shown={name: msgspec.Raw(msgspec.json.encode(value)) for name, value in shown.items()},
        wait=0,
    )
    await send_input(source, request, grant, session, asked)


async def answer(
    source: Source, requests: Requests, request: web.Request, grant: Grant, session: str, given: Sequence[Given]
) -> None:
    """Answer requests for input; one that is closed already keeps its first answer.

    Raises:
        NotAllowedError: The token may not answer them.
        RequestNotFoundError: There is no such request.
        DigestChangedError: A request has a digest, which these protocols have no place for.
        WakelineError: An answer does not fit its request, or cannot be appended now.
    """
    grant.check("input", session)
    asked = await _asked(requests, session, given)
    for each in given:
        found = asked.get(each.id)
        if found is None or found.resolved is not None:
            continue
        grant.check_input(session, f"$answer.{found.requested.reason}")
        source.limits.publish(request, grant, 1)
        if found.requested.digest is not None:
            raise DigestChangedError(
                f"expected an answer with the digest of request {found.id!r}, got one in a protocol without digests",
                hint="Answer it by POST /v1/sessions/{session}/requests/{id}, with the digest of what was shown.",
            )
        about = msgspec.convert(msgspec.to_builtins(found.requested), Request)
        payload = each.payload if each.approved is None else about.verdict(each.approved, each.reason)
        told = Answer(
            status="cancelled" if each.cancelled else "resolved",
            payload=UNSET if each.cancelled else msgspec.Raw(msgspec.json.encode(payload)),
        )
        told.check()
        try:
            # The request that was found and no later one of its id, for which the answer was not meant.
            life = Life(found.epoch, found.asked_at)
            await requests.answer(session, found.id, told, Person(grant.user, grant.roles), life=life)
        except AlreadyResolvedError:
            continue  # the answer that counts comes with the stream


async def _asked(requests: Requests, session: str, given: Sequence[Given]) -> dict[str, InputRequest]:
    """Return the requests that are answered, by the ids in the answers.

    Raises:
        RequestNotFoundError: There is no request of an id that is no tool call's.
    """
    found: dict[str, InputRequest] = {}
    calls: set[str] = set()
    for id, each in {each.id: each for each in given}.items():
        try:
            found[id] = await requests.find(session, id)
        except RequestNotFoundError:
            if not each.is_call:
                raise
        if each.is_call and (id not in found or found[id].resolved is not None):
            calls.add(id)
    after: str | None = ""
    while calls and after is not None:
        page, after = await requests.open(session, after)
        of_calls = {one.requested.tool_call_id: one for one in page}
        found |= {call: of_calls[call] for call in calls & of_calls.keys()}
        calls -= of_calls.keys()
    return found


async def stop(source: Source, request: web.Request, grant: Grant, session: str, rule: Face) -> Settled | None:
    """Stop what runs in a session, as its rule says.

    Raises:
        WakelineError: It is refused, or nothing runs.
    """
    kind = _ENDS.get(rule.stop, "signal")
    name = rule.stop if kind == "signal" else ""
    asked = Asked(id=f"stop-{uuid.uuid4().hex}", kind=kind, name=name)
    try:
        return await send_input(source, request, grant, session, asked)
    except (SessionNotFoundError, WorkflowNotFoundError) as error:
        # The hint of an input is about starting the workflow, which is no help to somebody who wants it to stop.
        message = f"expected an answer to stop in session {session!r}, nothing has run there yet"
        raise type(error)(message, hint=_WAIT) from None
