"""Tokens as somebody else makes them: with PyJWT, which shares no line with what the gateway reads them with."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

SECRET = "a secret of the tests, long enough for HS256"
ALL: list[str] = ["read", "ack", "publish", "input", "manage", "follow", "restore"]
EVERYTHING: dict[str, Any] = {"sessions": ["*"], "allow": ALL}


def claims(**changed: Any) -> dict[str, Any]:
    """Of a token that may do everything for some minutes; None leaves a claim out, other names belong to `wakeline`."""
    top = {"sub": "alice", "exp": time.time() + 600} | {
        name: changed.pop(name) for name in ("sub", "exp", "nbf", "iss", "aud") if name in changed
    }
    scope = {name: value for name, value in (EVERYTHING | changed).items() if value is not None}
    return {name: value for name, value in top.items() if value is not None} | {"wakeline": scope}


def token(key: Any = SECRET, alg: str = "HS256", headers: dict[str, Any] | None = None, **changed: Any) -> str:
    return jwt.encode(claims(**changed), key, algorithm=alg, headers=headers)


def bearer(**changed: Any) -> dict[str, str]:
    """The header of a request with a token."""
    return {"Authorization": f"Bearer {token(**changed)}"}


def by_hand(header: dict[str, Any], payload: bytes, secret: bytes | None = None) -> str:
    """A token no library would make: any header, any payload, signed with HMAC or not at all."""
    signed = f"{_base64(json.dumps(header).encode())}.{_base64(payload)}"
    signature = hmac.new(secret, signed.encode(), hashlib.sha256).digest() if secret is not None else b""
    return f"{signed}.{_base64(signature)}"


def jwk(key: Any, kid: str, **more: Any) -> dict[str, Any]:
    """The public half of a key as a JWKS holds it."""
    how: Any = {"RSAP": RSAAlgorithm, "ECPr": ECAlgorithm, "Ed25": OKPAlgorithm}[type(key).__name__[:4]]
    return {**how.to_jwk(key.public_key(), as_dict=True), "kid": kid, **more}


def _base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
