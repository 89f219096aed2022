"""Encrypts a push for one subscription: RFC 8291, one record of aes128gcm (RFC 8188)."""

from __future__ import annotations

import os
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

CURVE: Final = ec.SECP256R1()
POINT_BYTES: Final = 65
AUTH_BYTES: Final = 16
MOST_BYTES: Final = 4096
"""The largest body that every push service accepts, by RFC 8030."""

_SALT_BYTES: Final = 16
_HEADER_BYTES: Final = _SALT_BYTES + 4 + 1 + POINT_BYTES
_LAST: Final = b"\x02"  # the delimiter of the last record
_TAG_BYTES: Final = 16

MOST_PLAIN_BYTES: Final = MOST_BYTES - _HEADER_BYTES - len(_LAST) - _TAG_BYTES
"""The largest text whose encrypted form has `MOST_BYTES`."""


def encrypted(
    text: bytes,
    receiver: bytes,
    auth: bytes,
    *,
    sender: ec.EllipticCurvePrivateKey | None = None,
    salt: bytes | None = None,
) -> bytes:
    """Return the body of a push, which only the subscription's browser can read.

    Args:
        text: The text, at most `MOST_PLAIN_BYTES`.
        receiver: The subscription's public key (`p256dh`).
        auth: Its secret (`auth`).
        sender: The key of this push. Default: a new one.
        salt: The salt. Default: random.

    Raises:
        ValueError: `receiver` is no point of the curve.
    """
    sender, salt = sender or ec.generate_private_key(CURVE), salt or os.urandom(_SALT_BYTES)
    own = point_of(sender)
    shared = sender.exchange(ec.ECDH(), public_key(receiver))
    secret = _derived(shared, auth, b"WebPush: info\0" + receiver + own, 32)
    key = _derived(secret, salt, b"Content-Encoding: aes128gcm\0", 16)
    nonce = _derived(secret, salt, b"Content-Encoding: nonce\0", 12)
    header = salt + MOST_BYTES.to_bytes(4, "big") + bytes([POINT_BYTES]) + own
    return header + AESGCM(key).encrypt(nonce, text + _LAST, None)


def public_key(point: bytes) -> ec.EllipticCurvePublicKey:
    """Return the public key of an uncompressed point.

    Raises:
        ValueError: It is no point of the curve.
    """
    return ec.EllipticCurvePublicKey.from_encoded_point(CURVE, point)


def point_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a key's public half as an uncompressed point."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _derived(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt, info).derive(secret)
