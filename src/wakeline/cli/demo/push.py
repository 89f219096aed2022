"""The phone's push endpoint: it shows what a phone that is asleep would show.

It decrypts with `cryptography` alone, independently of the gateway's encoder, so that it proves that a browser could.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import msgspec
from aiohttp import web
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from wakeline.cli.demo.page import served
from wakeline.gateway.notifications import new_keys

_GRACE_SECONDS: Final = 1.5
_SALT: Final = slice(0, 16)
_KEY: Final = slice(21, 86)  # after the record size and the key's length
_TEXT: Final = slice(86, None)


class Notice(msgspec.Struct, frozen=True):
    """A notification on the lock screen; `time` is when it came, as Unix time."""

    id: str
    session: str
    text: str
    time: float


class PushEndpoint:
    """Receives the phone's pushes on loopback.

    Attributes:
        shown: The notifications, by their tag, as a phone replaces one by a push with the same tag.
        url: Where pushes go.
    """

    def __init__(self) -> None:
        self.shown: dict[str, Notice] = {}
        self.url = ""
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.auth = os.urandom(16)
        self._arrived = asyncio.Event()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Serve while the block runs."""
        # The endpoint decodes `aes128gcm` itself.
        async with served([web.post("/push", self._push)], auto_decompress=False) as url:
            self.url = f"{url}/push"
            yield

    async def subscribe(self, gateway: str, device: str) -> None:
        """Register this endpoint with the gateway as a device's subscription."""
        keys = {"p256dh": _unpadded(self._point()), "auth": _unpadded(self.auth)}
        async with (
            aiohttp.ClientSession() as http,
            http.put(
                f"{gateway}/v1/push/subscriptions/{device}", json={"endpoint": self.url, "keys": keys}
            ) as response,
        ):
            response.raise_for_status()

    async def first(self) -> Notice:
        """Wait for the first notification."""
        await self._arrived.wait()
        return next(iter(self.shown.values()))

    def decrypted(self, body: bytes) -> bytes:
        """Return the text of a push (RFC 8291).

        Raises:
            InvalidTag: It was encrypted for another device.
            ValueError: It is not a push.
        """
        salt, sender = body[_SALT], body[_KEY]
        shared = self.key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender))
        secret = _derived(shared, self.auth, b"WebPush: info\0" + self._point() + sender, 32)
        key = _derived(secret, salt, b"Content-Encoding: aes128gcm\0", 16)
        nonce = _derived(secret, salt, b"Content-Encoding: nonce\0", 12)
        padded = AESGCM(key).decrypt(nonce, body[_TEXT], None)
        return padded.rstrip(b"\0").removesuffix(b"\x02")

    def _point(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    async def _push(self, request: web.Request) -> web.Response:
        try:
            said = json.loads(self.decrypted(await request.read()))["notification"]
        except (InvalidTag, ValueError):  # of another web page or program on this machine
            return web.Response(status=400)
        self.shown[said["tag"]] = Notice(said["tag"], said["title"], said["body"], time.time())
        self._arrived.set()
        return web.Response(status=201)


def gateway_settings(page: str) -> str:
    """Return the gateway's settings, in TOML: questions that nobody has seen go to the phone."""
    private_key, _ = new_keys()
    return f"""
[notify.questions]
topics = ["$input.requested"]
grace = {_GRACE_SECONDS}

[channels.phone]
type = "web_push"
private_key = "{private_key}"
subject = "mailto:demo@example.com"
navigate = "{page}/"
networks = ["127.0.0.0/8"]
"""


def _unpadded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _derived(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt, info).derive(secret)
