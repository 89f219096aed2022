"""What a request's headers say. Each is read strictly, and refused with what was expected."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec
from multidict import CIMultiDictProxy

from wakeline.errors import NotImplementedHereError, RequestInvalidError
from wakeline.gateway.log import Owner, Publication
from wakeline.gateway.sessions import check_content_type
from wakeline.gateway.transports.durable_streams.refusals import StreamInvalidError

DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"
MAX_INTEGER: Final = 2**53 - 1
MAX_TTL: Final = 100 * 366 * 24 * 3600  # a hundred years: longer than that is what leaving it out says

SECURITY: Final = {
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
"""In every answer. No page elsewhere may embed a stream, and one whose content type is HTML runs nothing where it is opened:
who writes streams must not act as who reads them. Pages that may call are named by CORS, which neither touches."""

_INTEGER: Final = re.compile(r"0|[1-9][0-9]{0,15}")
_FORKS: Final = ("Stream-Forked-From", "Stream-Fork-Offset", "Stream-Fork-Sub-Offset")
_moment = msgspec.json.Decoder(datetime)

Headers = CIMultiDictProxy[str]


class Producer(msgspec.Struct, frozen=True):
    """Who appends, and which of that producer's requests this is."""

    name: str
    epoch: int
    sequence: int
    owner: Owner | None = None

    @property
    def publisher(self) -> str:
        """Its name in the log, apart from those who publish events: they count events, a producer counts requests."""
        return f"producer:{self.name}"

    @property
    def publication(self) -> Publication:
        """The same as the log knows it: attempts begin with 1, epochs with 0."""
        return Publication(self.publisher, self.epoch + 1, self.sequence, covers=1, owner=self.owner)


class Lifetime(msgspec.Struct, frozen=True):
    """When a stream ends by itself: so many seconds after its last use, at a moment, or never."""

    ttl: int | None = None
    expires_at: datetime | None = None


def content_type(headers: Headers) -> str | None:
    """`Content-Type` as it came; None if there is none.

    Raises:
        StreamInvalidError: It is not a media type.
    """
    text = _one(headers, "Content-Type")
    if text is None or not text.strip():
        return None
    try:
        return check_content_type(text.strip())
    except RequestInvalidError as error:
        raise StreamInvalidError(error.message) from None


def media_type(text: str) -> str:
    """A content type without parameters, in lower case: what two of them are compared by."""
    return text.partition(";")[0].strip().lower()


def lifetime(headers: Headers) -> Lifetime:
    """`Stream-TTL` and `Stream-Expires-At`.

    Raises:
        StreamInvalidError: One is malformed or past, or both are there.
    """
    ttl, expires_at = _one(headers, "Stream-TTL"), _one(headers, "Stream-Expires-At")
    if ttl is not None and expires_at is not None:
        raise StreamInvalidError("expected Stream-TTL or Stream-Expires-At, got both")
    if ttl is not None:
        return Lifetime(ttl=_integer("Stream-TTL", ttl, MAX_TTL))
    return Lifetime() if expires_at is None else Lifetime(expires_at=_parse_moment(expires_at))


def closes(headers: Mapping[str, str]) -> bool:
    """`Stream-Closed: true`; every other value is as none."""
    return headers.get("Stream-Closed", "").strip().lower() == "true"


def producer(headers: Headers) -> Producer | None:
    """The three headers that make an append idempotent.

    Raises:
        StreamInvalidError: Some of them are missing, or not what they must be.
    """
    given = {name: _one(headers, f"Producer-{name}") for name in ("Id", "Epoch", "Seq")}
    missing = [f"Producer-{name}" for name, text in given.items() if text is None]
    if len(missing) == 3:
        return None
    name, epoch, sequence = given["Id"], given["Epoch"], given["Seq"]
    if name is None or epoch is None or sequence is None:
        raise StreamInvalidError(
            f"expected Producer-Id, Producer-Epoch and Producer-Seq together, {missing[0]} is missing"
        )
    if not (1 <= len(name) <= 200 and name.isascii() and name.isprintable()):
        raise StreamInvalidError(f"expected Producer-Id to be 1 to 200 visible ASCII characters, got {name[:64]!r}")
    return Producer(
        name, _integer("Producer-Epoch", epoch, MAX_INTEGER), _integer("Producer-Seq", sequence, MAX_INTEGER)
    )


def stream_seq(headers: Headers) -> str | None:
    """`Stream-Seq`: the writer's own order, compared byte by byte.

    Raises:
        StreamInvalidError: It is empty, too long, or not ASCII.
    """
    text = _one(headers, "Stream-Seq")
    if text is not None and not (1 <= len(text) <= 256 and text.isascii() and text.isprintable()):
        raise StreamInvalidError(f"expected Stream-Seq to be 1 to 256 visible ASCII characters, got {text[:64]!r}")
    return text


def refuse_forks(headers: Mapping[str, str]) -> None:
    """Refuse what would otherwise look like a new, empty stream.

    Raises:
        NotImplementedHereError: The request asks for a fork.
    """
    for name in _FORKS:
        if name in headers:
            raise NotImplementedHereError(f"streams cannot be forked here, got {name}")


def _one(headers: Headers, name: str) -> str | None:
    texts = headers.getall(name, [])
    if len(texts) > 1:
        raise StreamInvalidError(f"expected {name} once, got it {len(texts)} times")
    return texts[0] if texts else None


def _integer(name: str, text: str, most: int) -> int:
    if _INTEGER.fullmatch(text) is None or int(text) > most:
        raise StreamInvalidError(f"expected {name} to be an integer from 0 to {most}, got {text[:40]!r}")
    return int(text)


def _parse_moment(text: str) -> datetime:
    try:
        moment = _moment.decode(msgspec.json.encode(text))
    except (msgspec.DecodeError, UnicodeEncodeError):
        moment = None
    if moment is None or moment.tzinfo is None or moment <= datetime.now(UTC):
        raise StreamInvalidError(
            f"expected Stream-Expires-At to be a moment to come, such as 2036-11-21T05:14:43Z, got {text[:40]!r}"
        )
    return moment
