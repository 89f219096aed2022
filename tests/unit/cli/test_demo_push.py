"""The demo's lock screen: it reads what another library encrypts, and shows nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import http_ece  # type: ignore[import-untyped]  # it has no types
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from wakeline.cli.demo.push import PushEndpoint


@pytest.fixture
async def phone() -> AsyncIterator[PushEndpoint]:
    endpoint = PushEndpoint()
    async with endpoint.serve():
        yield endpoint


def encrypted(phone: PushEndpoint, message: dict[str, Any]) -> bytes:
    point = phone.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    sender = ec.generate_private_key(ec.SECP256R1())
    body: bytes = http_ece.encrypt(
        json.dumps(message).encode(), private_key=sender, dh=point, auth_secret=phone.auth, version="aes128gcm"
    )
    return body


async def push(phone: PushEndpoint, body: bytes) -> int:
    # A push service is sent this header, too; the body is for the phone to decode.
    async with (
        aiohttp.ClientSession(headers={"Content-Encoding": "aes128gcm"}) as http,
        http.post(phone.url, data=body) as response,
    ):
        return response.status


def message(text: str) -> dict[str, Any]:
    return {"web_push": 8030, "notification": {"title": "order-1", "body": text, "tag": "msg_1"}}


async def test_a_repeated_push_replaces_the_first_on_the_lock_screen(phone: PushEndpoint) -> None:
    for text in ("Pay 12 EUR?", "Pay 12 EUR to ACME?"):
        assert await push(phone, encrypted(phone, message(text))) == 201
    assert [(one.session, one.text) for one in phone.shown.values()] == [("order-1", "Pay 12 EUR to ACME?")]


async def test_a_push_for_another_phone_and_garbage_are_not_shown(phone: PushEndpoint) -> None:
    for body in (encrypted(PushEndpoint(), message("for another")), b"", b"garbage" * 30):
        assert await push(phone, body) == 400
    assert phone.shown == {}
