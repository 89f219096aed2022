"""Keys of NATS: nkeys, and the tokens of an operator, its accounts and a user, as `nsc` makes them."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_OPERATOR: Final = 14 << 3
_ACCOUNT: Final = 0
_USER: Final = 20 << 3
_SEED: Final = 18 << 3
_LIMITS: Final = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
_OF_STORES: Final = ("mem_storage", "disk_storage", "streams", "consumer")


def _encoded(raw: bytes) -> str:
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")


class Key:
    """A key pair of one kind."""

    def __init__(self, kind: int = _USER) -> None:
        self._kind = kind
        self._key = Ed25519PrivateKey.generate()

    @property
    def public(self) -> str:
        return _encoded(bytes([self._kind]) + self._key.public_key().public_bytes_raw())

    @property
    def seed(self) -> str:
        begin = bytes([_SEED | self._kind >> 5, (self._kind & 31) << 3])
        return _encoded(begin + self._key.private_bytes_raw())

    def token(self, subject: str, kind: str, **more: Any) -> str:
        """Return a token about another key."""
        claims = {"jti": "1", "iat": 1, "iss": self.public, "sub": subject, "name": kind}
        claims["nats"] = {**more, "type": kind, "version": 2}
        parts = b".".join(_url(json.dumps(one).encode()) for one in ({"typ": "JWT", "alg": "ed25519-nkey"}, claims))
        return (parts + b"." + _url(self._key.sign(parts))).decode()


def _url(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def operated() -> tuple[str, str]:
    """Return the configuration of a server with an operator, and the credentials file of a user."""
    operator, system, account, user = Key(_OPERATOR), Key(_ACCOUNT), Key(_ACCOUNT), Key()
    limits = {system: _LIMITS, account: (*_LIMITS, *_OF_STORES)}
    tokens = {
        one.public: operator.token(one.public, "account", limits=dict.fromkeys(some, -1))
        for one, some in limits.items()
    }
    preload = ", ".join(f"{name}: {token}" for name, token in tokens.items())
    options = (
        f"operator: {operator.token(operator.public, 'operator')}\n"
        f"system_account: {system.public}\nresolver: MEMORY\nresolver_preload: {{ {preload} }}"
    )
    token = account.token(user.public, "user", pub={}, sub={}, subs=-1, data=-1, payload=-1)
    return options, (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )
