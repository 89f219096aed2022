"""Events of a publisher without a gateway, which went through the workflow's own stream.

Such an item says whose it is in its payload's metadata. It is appended under that identity and not as the stream's own, so
that what had reached the gateway directly is not there twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Final

import msgspec
from google.protobuf.message import DecodeError
from msgspec import Meta
from temporalio.api.common.v1 import Payload

from wakeline.errors import RequestInvalidError
from wakeline.events import IDENTITY_KEY, MessagePiece, check_key, check_label
from wakeline.gateway.delivery import check_publisher
from wakeline.gateway.following.copying.reader import Item
from wakeline.gateway.log import Publication
from wakeline.notices import Notice, check_notice
from wakeline.streams.requests import REQUEST_TOPIC
from wakeline.text import read_whole

_MOST: Final = 2**53 - 1


class Identity(msgspec.Struct, frozen=True):
    """Whose event an item is, and which."""

    publisher: str
    attempt: Annotated[int, Meta(ge=1, le=_MOST)]
    sequence: Annotated[int, Meta(ge=0, le=_MOST)]
    run: str | None = None
    activity: str | None = None
    supersede: bool | None = None
    key: str | None = None
    message: MessagePiece | None = None
    notify: Notice | None = None

    @property
    def publication(self) -> Publication:
        """As the log asks for it."""
        return Publication.of_attempt(
            self.publisher,
            self.attempt,
            self.sequence,
            run=self.run,
            activity=self.activity,
            supersede=self.supersede,
        )


class Group(msgspec.Struct, frozen=True):
    """Consecutive items of one publisher that took the detour, or of the workflow itself.

    A request for input is a group of its own.
    """

    items: list[Item]
    identities: list[Identity]

    @property
    def asks(self) -> bool:
        """Whether the workflow asks for input."""
        return not self.identities and self.items[0].topic == REQUEST_TOPIC


_identity = msgspec.json.Decoder(Identity)


def groups(items: Sequence[Item]) -> Iterator[Group]:
    """Items by whose they are, in order."""
    group = Group([], [])
    for item in items:
        identity, plain = _read(item)
        if group.items and not _continues(group, item, identity):
            yield group
            group = Group([], [])
        group.items.append(plain)
        if identity is not None:
            group.identities.append(identity)
    if group.items:
        yield group


def _continues(group: Group, item: Item, identity: Identity | None) -> bool:
    if item.offset != group.items[-1].offset + 1 or REQUEST_TOPIC in (item.topic, group.items[-1].topic):
        return False
    if not group.identities or identity is None:
        return not group.identities and identity is None
    last = group.identities[-1]
    return (identity.publisher, identity.attempt, identity.sequence) == (
        last.publisher,
        last.attempt,
        last.sequence + 1,
    )


def _read(item: Item) -> tuple[Identity | None, Item]:
    """Return whose an item is, and the item without that; None and the item if it is invalid."""
    if IDENTITY_KEY.encode() not in item.payload:
        return None, item
    payload = Payload()
    try:
        payload.ParseFromString(item.payload)
        identity = read_whole(_identity.decode, payload.metadata[IDENTITY_KEY])
        check_publisher(identity.publisher)
        check_label("run", identity.run)
        check_label("activity", identity.activity)
        if identity.key is not None:
            check_key("key", identity.key)
        if identity.message is not None:
            check_key("message.id", identity.message.id)
        if identity.notify is not None:
            check_notice(identity.notify)
    except (DecodeError, KeyError, msgspec.DecodeError, RequestInvalidError, RecursionError):
        return None, item
    del payload.metadata[IDENTITY_KEY]
    return identity, msgspec.structs.replace(item, payload=payload.SerializeToString())
