"""A push service on 127.0.0.1, and browsers that subscribe to it and read what it was sent, by other libraries than ours."""

from __future__ import annotations

import base64
import json
import os
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import http_ece  # type: ignore[import-untyped]  # it has no types
import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.receivers import Answer, status
from tests.support import Served

DecryptError: type[Exception] = http_ece.ECEException
PRIVATE_KEY = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
PUBLIC_KEY = "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8"
"""The key that the gateway is known by, from the example of RFC 8291."""


def channel(**changed: Any) -> dict[str, Any]:
    """The table of the settings for Web Push."""
    table = {
        "type": "web_push",
        "private_key": PRIVATE_KEY,
        "subject": "mailto:ops@example.com",
        "navigate": "https://app.example.com/?session={session}",
        "networks": ["127.0.0.1"],
    }
    return {**table, **changed}


def unpadded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def decrypted(body: bytes, key: ec.EllipticCurvePrivateKey, auth: bytes) -> bytes:
    """The text of a push, by another library.

    Raises:
        ECEException: It is for another browser.
    """
    text: bytes = http_ece.decrypt(body, private_key=key, auth_secret=auth, version="aes128gcm")
    return text


@dataclass(frozen=True)
class Push:
    """One request that the service received."""

    name: str
    headers: dict[str, str]
    body: bytes

    def claims(self) -> dict[str, Any]:
        """The claims of the VAPID token, after another library has verified it with the key in the request."""
        scheme, token, key = self.headers["authorization"].replace(",", "").split()
        assert (scheme, key) == ("vapid", f"k={PUBLIC_KEY}")
        point = base64.urlsafe_b64decode(key.removeprefix("k=") + "=")
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        audience = f"http://{self.headers['host']}"
        found: dict[str, Any] = jwt.decode(token.removeprefix("t="), public, algorithms=["ES256"], audience=audience)
        return found


@dataclass
class Browser:
    """A browser with a subscription."""

    service: PushService
    name: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    auth: bytes = field(default_factory=lambda: os.urandom(16))

    @property
    def endpoint(self) -> str:
        return f"{self.service.url}/push/{self.name}"

    @property
    def p256dh(self) -> str:
        return unpadded(self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))

    def subscription(self) -> dict[str, Any]:
        """What `PushSubscription.toJSON()` returns."""
        keys = {"p256dh": self.p256dh, "auth": unpadded(self.auth)}
        return {"endpoint": self.endpoint, "expirationTime": None, "keys": keys}

    async def subscribe(self, served: Served, device: str = "", **how: Any) -> dict[str, Any]:
        """Register the subscription, and return the answer."""
        path = f"/v1/push/subscriptions/{device or self.name}"
        code, answer = await served.call("PUT", path, json=self.subscription(), **how)
        assert code == 200, answer
        assert isinstance(answer, dict)
        return answer

    @property
    def received(self) -> list[Push]:
        return [push for push in self.service.received if push.name == self.name]

    def read(self, push: Push) -> dict[str, Any]:
        """The message of a push, decrypted by another library."""
        message: dict[str, Any] = json.loads(decrypted(push.body, self.key, self.auth))
        assert message["web_push"] == 8030
        return message

    def shown(self) -> list[dict[str, Any]]:
        """The notifications that the browser shows."""
        return [self.read(push)["notification"] for push in self.received]


class PushService:
    """A push service; it accepts everything, unless `answers` has something else for the next pushes of a browser."""

    def __init__(self) -> None:
        self.url = ""
        self.received: list[Push] = []
        self.answers: dict[str, deque[Answer]] = defaultdict(deque)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        headers = {key.lower(): value for key, value in request.headers.items()}
        self.received.append(Push(name, headers, await request.read()))
        answer = self.answers[name].popleft() if self.answers[name] else status(201)
        return await answer(request)

    def browser(self, name: str) -> Browser:
        return Browser(self, name)


@asynccontextmanager
async def push_service() -> AsyncIterator[PushService]:
    """Run a push service inside the block."""
    app = web.Application()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0, handler_cancellation=True, auto_decompress=False)
    found = PushService()
    app.router.add_post("/push/{name}", found.handle)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield found
    finally:
        await runner.cleanup()
