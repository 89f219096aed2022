"""VAPID (RFC 8292): the key by which push services know the gateway, and its tokens."""

from __future__ import annotations

import base64
import binascii
import time
from typing import Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import ECKey
from yarl import URL

from wakeline.gateway.notifications.channels.encryption import CURVE, point_of

TOKEN_SECONDS: Final = 12 * 3600
"""How long a token is valid. Push services accept at most a day; the rest is for clocks that differ."""

_KEY_BYTES: Final = 32
_MOST_TOKENS: Final = 1_000


class Vapid:
    """Signs requests to push services.

    Args:
        private_key: The private key, in base64url.
        subject: A URL with `mailto:` or `https:`, by which a push service reaches the gateway's operator.

    Attributes:
        public_key: The public key in base64url; browsers subscribe with it.

    Raises:
        ValueError: The key or the subject is invalid; the message has the reason, without the key.
    """

    def __init__(self, private_key: str, subject: str) -> None:
        key = _key(private_key)
        self.public_key = unpadded(point_of(key))
        self._key = ECKey.import_key(key)
        self._subject = _checked(subject)
        self._tokens: dict[str, tuple[str, float]] = {}  # by origin, with the Unix time of its expiry

    def authorization(self, endpoint: str) -> str:
        """Return the value of `Authorization` for a request to a subscription's endpoint."""
        origin, now = str(URL(endpoint).origin()), time.time()
        token, expires = self._tokens.get(origin, ("", 0.0))
        if expires - now < TOKEN_SECONDS / 2:
            expires = now + TOKEN_SECONDS
            claims = {"aud": origin, "exp": int(expires), "sub": self._subject}
            token = jwt.encode({"alg": "ES256", "typ": "JWT"}, claims, self._key)
            if len(self._tokens) >= _MOST_TOKENS:  # users choose the endpoints
                self._tokens.clear()
            self._tokens[origin] = (token, expires)
        return f"vapid t={token}, k={self.public_key}"


def new_keys() -> tuple[str, str]:
    """Return a new private key and its public key, both in base64url."""
    key = ec.generate_private_key(CURVE)
    number = key.private_numbers().private_value
    return unpadded(number.to_bytes(_KEY_BYTES, "big")), unpadded(point_of(key))


def unpadded(value: bytes) -> str:
    """Return bytes in base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """Return the bytes of a text in base64url, with or without padding.

    Raises:
        ValueError: It is not base64url.
    """
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise ValueError("expected base64url") from None


def _key(text: str) -> ec.EllipticCurvePrivateKey:
    try:
        value = decoded(text)
        if len(value) != _KEY_BYTES:
            raise ValueError(f"{len(value)} bytes")
        return ec.derive_private_key(int.from_bytes(value, "big"), CURVE)
    except ValueError:
        raise ValueError(
            f"expected private_key to be {_KEY_BYTES} bytes in base64url, a key of the curve P-256"
        ) from None


def _checked(subject: str) -> str:
    """Return the subject if push services accept it: some refuse one that reaches nobody."""
    scheme, _, address = subject.partition(":")
    domain = address.rpartition("@")[2] if scheme == "mailto" else urlsplit(subject).hostname or ""
    named = "." in domain.strip(".") and (scheme == "https" or address.rpartition("@")[0])
    if scheme not in ("mailto", "https") or not named or not subject.isascii() or " " in subject:
        raise ValueError(
            f"expected subject to be mailto: with an address, or an https:// URL with a public name, got {subject[:100]!r}"
        )
    return subject
