"""Answer links: each lets a notified user answer one request for input, without a token.

A link is sealed and not stored: it holds what it is for, encrypted and authenticated by a key that the gateways of one store
share. The same content makes the same link, so each attempt to notify sends the same body. Everything that ends a link is
known elsewhere: the request's state, its session's epoch, and the time. `docs/decisions/0035` has the reasons.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from wakeline.errors import RecordConflictError, SettingsInvalidError
from wakeline.gateway.log import Records
from wakeline.gateway.notifications.channels.vapid import decoded, unpadded

LINK_SECONDS: Final = 7 * 86_400
"""Seconds after which a link is not accepted, also if its request is still open."""

_KEY: Final = "links/key"
_KEY_BITS: Final = 512  # two keys of 256 bits: AES-SIV authenticates with the one and encrypts with the other
_MOST_BASE: Final = 500


class Linked(msgspec.Struct, frozen=True, array_like=True):
    """The content of a link.

    Attributes:
        session: The session's name.
        epoch: The session's life.
        request: The request's id.
        user: The user who answers with it.
        expires: Unix time from which it is not accepted.
        asked_at: The time of the request's event, so that it answers no later request of the same id.
    """

    session: str
    epoch: str
    request: str
    user: str
    expires: int
    asked_at: str


_decoder = msgspec.msgpack.Decoder(Linked)


class Links:
    """Makes links, and reads those of every gateway with the same key.

    Args:
        key: The key, 64 bytes.
        base: The public URL of the gateway, which was checked.
    """

    def __init__(self, key: bytes, base: str) -> None:
        self._cipher = AESSIV(key)
        self._base = base.rstrip("/")

    @classmethod
    async def load(cls, records: Records, base: str) -> Links:
        """Return the links of a store, whose first gateway makes the key.

        Raises:
            SettingsInvalidError: `base` is not a URL that links can begin with.
            UnavailableError: The key cannot be read or written.
        """
        check_public_url(base)
        while True:
            record = await records.get_record(_KEY)
            if record is not None:
                return cls(record.value, base)
            with suppress(RecordConflictError):  # another gateway has made it meanwhile
                await records.put_record(_KEY, AESSIV.generate_key(_KEY_BITS), revision=0)

    def url(self, linked: Linked) -> str:
        """Return the URL of a link; the same one for the same content."""
        sealed = self._cipher.encrypt(msgspec.msgpack.encode(linked), None)
        return f"{self._base}/v1/answers/{unpadded(sealed)}"

    def read(self, link: str) -> Linked | None:
        """Return what a link is for; None if no gateway of this store has made it."""
        try:
            sealed = decoded(link)
            if unpadded(sealed) != link:
                return None  # the last character has bits that do not count
            return _decoder.decode(self._cipher.decrypt(sealed, None))
        except (InvalidTag, ValueError, msgspec.DecodeError):
            return None


def check_public_url(url: str) -> None:
    """Raise unless links can begin with a URL.

    Raises:
        SettingsInvalidError: It is not an HTTP URL, is too long, or has a user, a query or a fragment.
    """
    try:
        parts, _ = urlsplit(url), urlsplit(url).port
    except ValueError:
        parts = urlsplit("")
    unclean = not (url.isascii() and url.isprintable()) or set(url) & set(' "\\<>?#')
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.username
        or unclean
        or len(url) > _MOST_BASE
    ):
        raise SettingsInvalidError(
            f"expected public_url to be a URL of at most {_MOST_BASE} characters without a query, got {url[:100]!r}",
            hint="Write the address at which people reach the gateway, such as https://wakeline.example.com.",
        )
