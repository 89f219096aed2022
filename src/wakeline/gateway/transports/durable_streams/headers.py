"""The headers of a request, read strictly: an error states the expected value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec
from multidict import CIMultiDictProxy

from wakeline.errors import NotImplementedHereError, RequestInvalidError
from wakeline.events import parse_time
from wakeline.gateway.log import Owner, Publication
from wakeline.gateway.sessions import check_content_type
from wakeline.gateway.transports.durable_streams.refusals import StreamInvalidError

DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"
MAX_INTEGER: Final = 2**53 - 1
MAX_TTL: Final = 100 * 366 * 24 * 3600  # a hundred years; a longer lifetime is the same as none

SECURITY: Final = {
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
"""Headers of every answer. No page elsewhere may embed a stream, and one whose content type is HTML runs no scripts when
opened, so that writers of streams cannot act as their readers. Both leave the pages that CORS allows unaffected."""

_INTEGER: Final = re.compile(r"0|[1-9][0-9]{0,15}")
_FORKS: Final = ("Stream-Forked-From", "Stream-Fork-Offset", "Stream-Fork-Sub-Offset")

Headers = CIMultiDictProxy[str]


class Producer(msgspec.Struct, frozen=True):
    """The producer of an append, and the number of its request."""

    name: str
    epoch: int
    sequence: int
    owner: Owner | None = None

    @property
    def publisher(self) -> str:
        """The producer's name in the log.

        Its prefix separates it from publishers, which count events, not requests.
        """
        return f"producer:{self.name}"

    @property
    def publication(self) -> Publication:
        """The producer's publication in the log: attempts begin with 1, epochs with 0."""
        return Publication(self.publisher, self.epoch + 1, self.sequence, covers=1, owner=self.owner)


class Lifetime(msgspec.Struct, frozen=True):
    """When a stream ends by itself: some seconds after its last use, at a fixed time, or never."""

    ttl: int | None = None
    expires_at: datetime | None = None


def content_type(headers: Headers) -> str | None:
    """Return `Content-Type` as given; None if it is missing.

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
    """Return a content type without parameters, in lower case, for comparison."""
    return text.partition(";")[0].strip().lower()


def lifetime(headers: Headers) -> Lifetime:
    """Return the lifetime in `Stream-TTL` or `Stream-Expires-At`.

    Raises:
        StreamInvalidError: One is malformed or in the past, or both are given.
    """
    ttl, expires_at = _one(headers, "Stream-TTL"), _one(headers, "Stream-Expires-At")
    if ttl is not None and expires_at is not None:
        raise StreamInvalidError("expected Stream-TTL or Stream-Expires-At, got both")
    if ttl is not None:
        return Lifetime(ttl=_integer("Stream-TTL", ttl, MAX_TTL))
    return Lifetime() if expires_at is None else Lifetime(expires_at=_parse_moment(expires_at))


def closes(headers: Mapping[str, str]) -> bool:
    """Return whether the headers have `Stream-Closed: true`; other values have no meaning."""
    return headers.get("Stream-Closed", "").strip().lower() == "true"


def producer(headers: Headers) -> Producer | None:
    """Return the producer whose three headers make an append idempotent; None without them.

    Raises:
        StreamInvalidError: Some of them are missing or invalid.
    """
    given = {name: _one(headers, f"Producer-{name}") for name in ("Id", "Epoch", "Seq")}
    missing = [f"Producer-{name}" for name, text in given.items() if text is None]
    if len(missing) == 3:
        return None
    name, epoch, sequence = given["Id"], given["Epoch"], given["Seq"]
    if name is None or epoch is None or sequence is None:
        raise StreamInvalidError(f"expected Producer-Id, Producer-Epoch and Producer-Seq together, got no {missing[0]}")
    if not (1 <= len(name) <= 200 and name.isascii() and name.isprintable()):
        raise StreamInvalidError(f"expected Producer-Id to be 1 to 200 visible ASCII characters, got {name[:64]!r}")
    return Producer(
        name, _integer("Producer-Epoch", epoch, MAX_INTEGER), _integer("Producer-Seq", sequence, MAX_INTEGER)
    )


def stream_seq(headers: Headers) -> str | None:
    """Return `Stream-Seq`, which is compared byte by byte; None if it is missing.

    Raises:
        StreamInvalidError: It is empty, too long, or not ASCII.
    """
    text = _one(headers, "Stream-Seq")
    if text is not None and not (1 <= len(text) <= 256 and text.isascii() and text.isprintable()):
        raise StreamInvalidError(f"expected Stream-Seq to be 1 to 256 visible ASCII characters, got {text[:64]!r}")
    return text


def refuse_forks(headers: Mapping[str, str]) -> None:
    """Refuse to fork a stream: ignoring these headers would create a new, empty stream instead.

    Raises:
        NotImplementedHereError: The request asks for a fork.
    """
    for name in _FORKS:
        if name in headers:
            raise NotImplementedHereError(f"expected no {name}: this server cannot fork streams")


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
    moment = parse_time(text)
    if moment is None or moment.tzinfo is None or moment <= datetime.now(UTC):
        raise StreamInvalidError(
            f"expected Stream-Expires-At to be a future time, such as 2036-11-21T05:14:43Z, got {text[:40]!r}"
        )
    return moment
