"""Requests for input: who is notified of one, and that nobody is once it is closed."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Final, NamedTuple

import msgspec

from wakeline.gateway.notifications.values import Box, Message, Waiting

_ROLE: Final = "role:"
_MOST_AUDIENCE_BYTES: Final = 8 * 1024  # each rule that matches keeps the names in the session's one record


class Question(NamedTuple):
    """A request for input, as far as its notification is concerned.

    Attributes:
        id: The request's id; empty if it is none.
        audience: The users that it names, without roles.
        linkable: Whether an answer link can answer it: it is a question with choices, and without a digest.
    """

    id: str = ""
    audience: tuple[str, ...] = ()
    linkable: bool = False


class _Asked(msgspec.Struct):
    id: str = ""
    kind: str = "question"
    audience: tuple[str, ...] | None = None
    choices: list[str] | None = None
    digest: str | None = None


class _Requested(msgspec.Struct):
    data: _Asked = msgspec.field(default_factory=_Asked)


class _Closing(msgspec.Struct):
    request: str = ""


class _Resolved(msgspec.Struct):
    data: _Closing = msgspec.field(default_factory=_Closing)


_requested = msgspec.json.Decoder(_Requested)
_resolved = msgspec.json.Decoder(_Resolved)


def asked(body: bytes) -> Question:
    """Return the request of a `$input.requested`."""
    try:
        data = _requested.decode(body).data
    except msgspec.DecodeError:
        return Question()
    users, left = list[str](), _MOST_AUDIENCE_BYTES
    for name in data.audience or ():
        left -= len(name.encode())
        if not name.startswith(_ROLE) and left >= 0:
            users.append(name)
    # A tool needs a device that runs it, and a digest an app that shows what it is about.
    linkable = data.kind == "question" and bool(data.choices) and data.digest is None
    return Question(data.id, tuple(users), linkable)


def closed(body: bytes) -> str:
    """Return the id of the request that a `$input.resolved` closes."""
    try:
        return _resolved.decode(body).data.request
    except msgspec.DecodeError:
        return ""


def is_about_requests(box: Box) -> bool:
    """Return whether a box has something that is not sent if a request is closed."""
    return any(item.request for item in box.waiting) or any(
        message.requests for message in box.messages if message.state == "pending"
    )


def without_closed(box: Box, requests: Set[str]) -> Box:
    """Return the box after these requests were closed."""
    about = {item.request for item in box.waiting} | {id for message in box.messages for id in message.requests}
    for request in about & requests:
        waiting = tuple(waiting_after(box.waiting, request))
        box = msgspec.structs.replace(box, waiting=waiting, messages=messages_after(box.messages, request))
    return box


def waiting_after(waiting: Sequence[Waiting], request: str) -> list[Waiting]:
    """Return the waiting events without a request that is closed."""
    return [item for item in waiting if not request or item.request != request]


def messages_after(messages: Sequence[Message], request: str) -> tuple[Message, ...]:
    """Return the messages after a request was closed.

    Pending messages whose last open request it was are cancelled.
    """
    return tuple(_after(message, request) for message in messages)


def _after(message: Message, request: str) -> Message:
    if not request or request not in message.requests or message.state != "pending":
        return message
    left = tuple(one for one in message.requests if one != request)
    ended = not left and not message.forced
    return msgspec.structs.replace(message, requests=left, state="cancelled" if ended else "pending")
