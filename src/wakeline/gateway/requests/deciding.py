"""The effect of an answer on a request: pure functions of both, and of the time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from wakeline.errors import (
    AlreadyResolvedError,
    BodyTooLargeError,
    ClaimedError,
    ClaimRequiredError,
    DigestChangedError,
    NotAllowedError,
    RequestInvalidError,
    RequestNotFoundError,
    ValueInvalidError,
)
from wakeline.events import INPUT_ANSWERED, INPUT_CLAIMED, INPUT_RESOLVED, check_data, timestamp
from wakeline.gateway.log import MAX_RECORD_BYTES
from wakeline.gateway.requests.asked import (
    MAX_SHARED_PAYLOAD_BYTES,
    ROLE,
    Answer,
    Claim,
    check_bytes,
    role_names,
)
from wakeline.gateway.sessions import Answered, Claimed, ClosedAs, InputRequest, Requested, Resolved
from wakeline.schemas import Schema

Data: TypeAlias = Requested | Claimed | Answered | Resolved


_MAX_OPEN_BYTES: Final = MAX_RECORD_BYTES - 72 * 1024
"""The most bytes of an open request's record: the longest outcome has room beside it."""


class Person(NamedTuple):
    """A person who answers.

    Attributes:
        user: The token's user; empty if no token is required.
        roles: The token's roles.
        permits: Returns whether the token allows answers to requests of a reason; None if that was checked.
        reads: Whether the token reads requests, so that a refusal may describe one.
    """

    user: str
    roles: tuple[str, ...] = ()
    permits: Callable[[str], bool] | None = None
    reads: bool = True


class Next(NamedTuple):
    """The next event of a request."""

    topic: str
    data: Data


class Life(NamedTuple):
    """One of the requests that have had an id, one after the other was forgotten.

    Attributes:
        epoch: The session's life.
        asked_at: The time of the request's event.
    """

    epoch: str
    asked_at: str


def check_life(request: InputRequest, life: Life | None) -> None:
    """Raise if a request is another one of the same id.

    Raises:
        RequestNotFoundError: It is of another life.
    """
    if life not in (None, (request.epoch, request.asked_at)):
        raise RequestNotFoundError(f"expected the request {request.id!r} of {life.asked_at}, got a later one")


def check_person(request: InputRequest, person: Person) -> None:
    """Raise unless a person's token allows the request's reason, and its audience has them.

    Raises:
        NotAllowedError: It does not, or they do not.
    """
    reason, audience = request.requested.reason, request.requested.audience
    if person.permits is not None and not person.permits(reason):
        name = f"the input {f'$answer.{reason}'!r}" if person.reads else "an answer to this request"
        raise NotAllowedError(
            f"expected a token that allows {name} in this session, got one that does not",
            hint="Use a token whose claim wakeline.inputs names $answer. and the request's reason.",
        )
    if audience is None or not person.user:
        return
    is_named = person.user in audience and not person.user.startswith(ROLE)
    if not is_named and role_names(person.roles).isdisjoint(audience):
        named = ", ".join(audience)[:200] if person.reads else "the request's audience"
        raise NotAllowedError(
            f"expected an answer of {named}, got one of {person.user!r}",
            hint="Use a token of a user or a role (wakeline.roles) that the request's audience names.",
        )


def is_expired(request: InputRequest, now: str) -> bool:
    """Return whether an open request accepts no answer at this time."""
    expires_at = request.requested.expires_at
    return request.resolved is None and expires_at is not None and now >= expires_at


def closing(request: InputRequest, status: ClosedAs, by: str | None = None, device: str | None = None) -> Next:
    """Return the event that closes a request without an answer."""
    return Next(INPUT_RESOLVED, Resolved(request=request.id, status=status, by=by or None, device=device))


def decide(request: InputRequest, answer: Answer, person: Person, now: str) -> Next | None:
    """Return the event that an answer appends; None if the request has this answer already.

    Args:
        request: The request as it is now.
        answer: The answer, which was checked.
        person: Who gives it.
        now: The time of the event.

    Raises:
        AlreadyResolvedError: The request is closed, and not by this answer; or this person has given another answer.
        DigestChangedError: The answer is about something else.
        ClaimRequiredError: The request is a tool, and another device runs it, or none.
        ValueInvalidError: The payload is none that the request allows.
        BodyTooLargeError: Several people have to answer, and the payload, or all of theirs, is too large.
    """
    by = person.user or None
    if request.resolved is not None:
        if _is_same(request.resolved, answer, by):
            return None
        raise _already(request)
    given = next((each for each in request.answers if each.by == by), None)
    if given is not None and answer.status == "resolved":
        if _same(given.payload, answer.json):
            return None
        raise _already(request)
    if is_expired(request, now):
        return closing(request, "expired")
    if request.requested.digest is not None and answer.digest != request.requested.digest:
        raise DigestChangedError(
            f"expected the digest {request.requested.digest!r} of the request, got {answer.digest or 'none'!r}"
        )
    _check_claimed(request, by, answer.device)
    if answer.status == "cancelled":
        return closing(request, "cancelled", by, answer.device)
    _check_payload(request, answer.json)
    alike = [each for each in request.answers if _same(each.payload, answer.json)]
    payload = msgspec.Raw(check_data(answer.json))
    answered = Answered(request=request.id, payload=payload, by=by, device=answer.device)
    if len(alike) + 1 < request.requested.needs:
        _check_room(request, answered)
        return Next(INPUT_ANSWERED, answered)
    answers = [_who(each) for each in (*alike, answered)] if request.requested.needs > 1 else None
    resolved = Resolved(
        request=request.id, status="resolved", payload=payload, by=by, device=answer.device, answers=answers
    )
    return Next(INPUT_RESOLVED, resolved)


def claiming(request: InputRequest, claim: Claim, person: Person, now: str) -> Next | None:
    """Return the event that a claim appends; None if the device holds the request already.

    Args:
        request: The request as it is now.
        claim: The claim, which was checked.
        person: Who makes it.
        now: The time of the event.

    Raises:
        AlreadyResolvedError: The request is closed.
        ClaimedError: Another device runs it.
        RequestInvalidError: It is no tool.
    """
    if request.requested.kind != "tool":
        raise RequestInvalidError(f"expected a request of kind tool to claim, got {request.requested.kind}")
    if request.resolved is not None:
        raise _already(request)
    if is_expired(request, now):
        return closing(request, "expired")
    by, held = person.user or None, request.claim
    at = datetime.fromisoformat(now)
    if held is not None and now < held.until:
        if (held.by, held.device) != (by, claim.device):
            raise ClaimedError(f"expected a request that no device runs, {held.device!r} has claimed it", held.until)
        if held.until >= timestamp(at + timedelta(seconds=claim.lease / 2)):
            return None
    until = timestamp(at + timedelta(seconds=claim.lease))
    return Next(INPUT_CLAIMED, Claimed(request=request.id, device=claim.device, until=until, by=by))


def _check_claimed(request: InputRequest, by: str | None, device: str | None) -> None:
    """Raise unless a tool's answer comes from the device that has claimed it last."""
    held = request.claim
    if request.requested.kind == "tool" and (held is None or (held.by, held.device) != (by, device)):
        raise ClaimRequiredError(
            f"expected an answer of the device that runs the tool, {'none' if held is None else repr(held.device)},"
            f" got one of {device or 'none'!r}"
        )


def _same(one: msgspec.Raw | UnsetType, other: bytes) -> bool:
    """Return whether two JSON texts are the same value."""
    return one is not UNSET and _canonical(bytes(one)) == _canonical(other)


def _canonical(text: bytes) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(text), order="sorted")


def _check_payload(request: InputRequest, payload: bytes) -> None:
    choices, schema = request.requested.choices, request.requested.response_schema
    if request.requested.needs > 1:  # the record has the answers of all
        check_bytes("a payload that several people give", payload, MAX_SHARED_PAYLOAD_BYTES)
    value: Any = msgspec.json.decode(payload)
    if choices is not None and not (isinstance(value, str) and value in choices):
        raise ValueInvalidError(f"expected a payload that is one of {', '.join(map(repr, choices))[:300]}")
    if schema is not None:
        Schema(schema).check(value, "payload")


def _is_same(resolved: Resolved, answer: Answer, by: str | None) -> bool:
    if resolved.status != answer.status:
        return False
    if answer.status == "cancelled":
        return resolved.by == by
    users = [resolved.by] if resolved.answers is None else [each.get("by") for each in resolved.answers]
    return by in users and _same(resolved.payload, answer.json)


def _check_room(request: InputRequest, answered: Answered) -> None:
    """Raise unless the record of a request has room for one more answer.

    Raises:
        BodyTooLargeError: It does not.
    """
    kept = msgspec.json.encode(msgspec.structs.replace(request, answers=(*request.answers, answered)))
    if len(kept) > _MAX_OPEN_BYTES:
        raise BodyTooLargeError(
            f"expected a request with different answers of at most {_MAX_OPEN_BYTES} bytes, got {len(kept)}",
            hint="Give an answer that others have given, or cancel the request.",
        )


def _who(answered: Answered) -> dict[str, str]:
    named = {"by": answered.by, "device": answered.device}
    return {name: value for name, value in named.items() if value is not None}


def _already(request: InputRequest) -> AlreadyResolvedError:
    if request.resolved is None:
        return AlreadyResolvedError("expected this person's first answer, got another one after it", None)
    return AlreadyResolvedError(
        f"expected an open request, {request.id!r} is {request.resolved.status}",
        msgspec.json.decode(msgspec.json.encode(request.resolved)),
    )
