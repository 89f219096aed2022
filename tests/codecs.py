"""Payload codecs for tests: real encryption, and a codec server of Temporal's kind."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

KEY = bytes(range(32))


class Encrypting(PayloadCodec):
    """AES-GCM, as in Temporal's own samples: the nonce, then the encrypted payload. What is not encrypted it leaves alone."""

    def __init__(self, key: bytes = KEY) -> None:
        self._cipher = AESGCM(key)

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._encrypted(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._decrypted(payload) for payload in payloads]

    def _encrypted(self, payload: Payload) -> Payload:
        nonce = os.urandom(12)
        metadata = {"encoding": b"binary/encrypted", "encryption-key-id": b"test"}
        data = nonce + self._cipher.encrypt(nonce, payload.SerializeToString(), None)
        return Payload(metadata=metadata, data=data)

    def _decrypted(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != b"binary/encrypted":
            return payload
        return Payload.FromString(self._cipher.decrypt(payload.data[:12], payload.data[12:], None))


class CodecServer:
    """A codec server that takes note of what it is asked; `status` other than 200 is answered to the next `failing` requests."""

    def __init__(self, codec: PayloadCodec) -> None:
        self.codec = codec
        self.asked: list[tuple[str, int]] = []
        self.headers: dict[str, str] = {}
        self.failing, self.status = 0, 200
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.headers = dict(request.headers)
        what = request.match_info["what"]
        self.asked.append((what, len(body["payloads"])))
        if self.failing:
            self.failing -= 1
            return web.Response(status=self.status, text="no")
        change = self.codec.encode if what == "encode" else self.codec.decode
        try:
            changed = await change([from_json(payload) for payload in body["payloads"]])
        except Exception as error:  # noqa: BLE001
            return web.Response(status=400, text=repr(error))
        return web.json_response({"payloads": [to_json(payload) for payload in changed]})


@asynccontextmanager
async def codec_server(codec: PayloadCodec | None = None) -> AsyncIterator[CodecServer]:
    server = CodecServer(codec or Encrypting())
    application = web.Application()
    application.router.add_post("/{namespace}/{what:encode|decode}", server.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/{{namespace}}"
        yield server
    finally:
        await runner.cleanup()


def to_json(payload: Payload) -> dict[str, Any]:
    metadata = {key: b64encode(value).decode() for key, value in payload.metadata.items()}
    return {"metadata": metadata, "data": b64encode(payload.data).decode()}


def from_json(payload: dict[str, Any]) -> Payload:
    metadata = {key: b64decode(value) for key, value in payload.get("metadata", {}).items()}
    return Payload(metadata=metadata, data=b64decode(payload.get("data", "")))
