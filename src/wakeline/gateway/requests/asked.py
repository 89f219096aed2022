"""A request for input, and an answer to one, as clients send them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from wakeline.errors import BodyTooLargeError, RequestInvalidError, ValueInvalidError
from wakeline.events import check_data, check_label, timestamp
from wakeline.gateway.sessions import Delivery, Requested, RequestKind
from wakeline.schemas import Schema

ROLE: Final = "role:"
"""The prefix of a role in an audience."""

MAX_PAYLOAD_BYTES: Final = 64 * 1024
MAX_SHARED_PAYLOAD_BYTES: Final = 4 * 1024
"""The most bytes of a payload that several people have to give, each of whose answers is kept."""

_MAX_REQUEST_BYTES: Final = 96 * 1024  # and the rest of the record for its answers
_MAX_METADATA_BYTES: Final = 16 * 1024
_LONGEST: Final = 366 * 86_400
_ID: Final = re.compile(r"[!-~]{1,128}")
_REASON: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}")

Text = Annotated[str, Meta(min_length=1, max_length=256)]


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A request for input as its asker sends it.

    Attributes:
        id: A key that the asker made, 1 to 128 visible ASCII characters.
        reason: Why it asks, such as `approval`; a token names the reasons that it may answer.
        kind: `tool`: one device at a time claims it, runs it, and answers with its value.
        message: The question, for people.
        choices: The possible answers.
        response_schema: The JSON Schema of an answer.
        expires_in: Seconds for which it can be answered; None for ever.
        audience: Users, and roles as `role:NAME`, who may answer; None for everybody whose token allows it.
        digest: Names what the request is about; an answer has to have the same.
        tool_call_id: The tool call that it belongs to.
        metadata: Further data for the devices.
        needs: The number of people who have to give the same answer.
        run: The run that asks.
        activity: The activity that asks.
        deliver: How the run receives the outcome; None if it does not.
        wait: Seconds to wait for the outcome.
    """

    id: str
    reason: str
    kind: RequestKind = "question"
    message: Annotated[str, Meta(max_length=8192)] | None = None
    choices: Annotated[list[Text], Meta(min_length=1, max_length=100)] | None = None
    response_schema: dict[str, Any] | None = None
    expires_in: Annotated[float, Meta(ge=0.1, le=_LONGEST)] | None = None
    audience: Annotated[list[Text], Meta(min_length=1, max_length=100)] | None = None
    digest: Text | None = None
    tool_call_id: Text | None = None
    metadata: dict[str, Any] | None = None
    needs: Annotated[int, Meta(ge=1, le=10)] = 1
    run: str | None = None
    activity: str | None = None
    deliver: Delivery | None = None
    wait: Annotated[float, Meta(ge=0, le=60)] = 0.0

    def check(self, *, identified: bool) -> None:
        """Raise unless this is a request that can be answered.

        Args:
            identified: Whether the gateway requires tokens, so that people can be distinguished.

        Raises:
            RequestInvalidError: The id, the reason, the choices or the number of people are impossible.
            SchemaInvalidError: The schema is invalid, or too large.
            BodyTooLargeError: The metadata, or all of it, is too large.
        """
        check_id(self.id)
        if not _REASON.fullmatch(self.reason):
            raise RequestInvalidError(
                "expected a reason of 1 to 128 letters, digits and _ . : / -, such as approval, "
                f"got {self.reason[:64]!r}"
            )
        if self.choices is not None and self.response_schema is not None:
            raise RequestInvalidError("expected choices or response_schema, got both")
        if self.choices is not None and len(set(self.choices)) < len(self.choices):
            raise RequestInvalidError("expected different choices, got one of them twice")
        if self.needs > 1 and self.kind == "tool":
            raise RequestInvalidError("expected needs to be 1 with kind tool, because one device runs it")
        if self.needs > 1 and not identified:
            raise RequestInvalidError("expected needs to be 1, because only tokens distinguish people")
        if self.response_schema is not None:
            Schema(self.response_schema)
        if self.deliver is not None and self.deliver.name.startswith(("__temporal", "$")):
            raise RequestInvalidError(
                f"expected a name that begins with neither __temporal nor $, got {self.deliver.name[:64]!r}"
            )
        check_label("run", self.run)
        check_label("activity", self.activity)
        if self.metadata is not None:
            check_bytes("metadata", check_data(msgspec.json.encode(self.metadata)), _MAX_METADATA_BYTES)
        check_bytes("a request", msgspec.json.encode(self), _MAX_REQUEST_BYTES)

    def content(self) -> str:
        """Return a digest of all that tells two requests of a run apart, so not of who asks."""
        return _digest(self)

    def is_content(self, digest: str, run: str | None, activity: str | None) -> bool:
        """Return whether this is the request of a record, which may have an older digest.

        Args:
            digest: The digest of the record.
            run: The run that asked first.
            activity: The activity that asked first.
        """
        if digest == self.content():
            return True
        # Older gateways stored a digest that also has who asked: the run by its id, which may be its name, and the activity.
        return any(
            digest == _digest(self, run=a_run, activity=an_activity)
            for a_run in {self.run, run}
            for an_activity in {self.activity, activity}
        )

    def requested(self) -> Requested:
        """Return the data of its `$input.requested`, which expires so long after now."""
        expires_at: str | None = None
        if self.expires_in is not None:
            expires_at = timestamp(datetime.now(UTC) + timedelta(seconds=self.expires_in))
        requested = msgspec.convert(self, Requested, from_attributes=True)
        return msgspec.structs.replace(requested, expires_at=expires_at)


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A device's claim to run a tool.

    Attributes:
        device: The device.
        lease: Seconds for which no other device can claim it.
    """

    device: Text
    lease: Annotated[float, Meta(ge=1, le=300)] = 30.0


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An answer to a request.

    Attributes:
        status: `cancelled` declines to answer, and closes the request.
        payload: The answer; unset for null, and with `cancelled`.
        device: The device that it is sent from.
        digest: That of the request, as the device has computed it.
        expect: The offset of the last event that the device has seen.
    """

    status: Annotated[str, Meta(pattern="^(resolved|cancelled)$")] = "resolved"
    payload: msgspec.Raw | UnsetType = UNSET
    device: Text | None = None
    digest: str | None = None
    expect: Annotated[int, Meta(ge=-1)] | None = None

    def check(self) -> None:
        """Raise unless a request may have this answer.

        Raises:
            RequestInvalidError: It is cancelled and has a payload.
            BodyInvalidError: The payload nests too deep.
            BodyTooLargeError: The payload is too large.
            ValueInvalidError: The payload has a number that nothing can hold.
        """
        if self.status == "cancelled" and self.payload is not UNSET:
            raise RequestInvalidError("expected no payload with status cancelled, got one")
        check_bytes("a payload", check_data(self.json), MAX_PAYLOAD_BYTES)
        try:
            msgspec.json.decode(self.json)
        except msgspec.DecodeError as error:  # JSON may have numbers that nothing can hold
            raise ValueInvalidError(f"expected a payload whose numbers a double can hold, got: {error}") from None

    @property
    def json(self) -> bytes:
        """The payload; null without one."""
        return b"null" if self.payload is UNSET else bytes(self.payload)


def _digest(asked: Asked, *, run: str | None = None, activity: str | None = None) -> str:
    plain = msgspec.to_builtins(msgspec.structs.replace(asked, wait=0.0, run=run, activity=activity))
    return sha256(msgspec.json.encode(plain, order="sorted")).hexdigest()


def role_names(roles: Sequence[str]) -> set[str]:
    """Return a user's roles as an audience names them."""
    return {ROLE + role for role in roles}


def check_id(id: str) -> str:
    """Return a request's id if it is one.

    Raises:
        RequestInvalidError: It is empty, too long, or not visible ASCII.
    """
    if not _ID.fullmatch(id) or id in (".", ".."):  # which no address could end in
        raise RequestInvalidError(f"expected a request's id of 1 to 128 visible ASCII characters, got {id[:130]!r}")
    return id


def check_bytes(what: str, data: bytes, most: int) -> None:
    """Raise if a part of a request is too large.

    Raises:
        BodyTooLargeError: It has more bytes.
    """
    if len(data) > most:
        raise BodyTooLargeError(
            f"expected {what} of at most {most} bytes, got {len(data)}",
            hint="Keep large values elsewhere, and send a reference.",
        )
