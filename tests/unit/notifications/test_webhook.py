"""A webhook is signed so that others can verify it, and what a receiver answers decides what follows."""

from __future__ import annotations

import asyncio
import base64
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from standardwebhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from tests.accepting import accepting
from tests.receivers import (
    OTHER_SECRET,
    SECRET,
    Answer,
    Receiver,
    endless,
    garbage,
    hang,
    many_headers,
    status,
    trickling,
)
from wakeline.gateway.notifications.channels.channel import Notification, Outcome
from wakeline.gateway.notifications.channels.guard import AddressGuard
from wakeline.gateway.notifications.channels.outgoing import Outgoing
from wakeline.gateway.notifications.channels.webhook import Webhook, signed

NOTIFICATION = Notification("msg_1", "ada", "s", '{"type":"notification","data":{"text":"ä"}}'.encode())


@asynccontextmanager
async def waiting(seconds: float) -> AsyncIterator[Outgoing]:
    """A client that waits so long for an answer."""
    async with Outgoing(AddressGuard(["127.0.0.0/8"]), timeout=seconds) as found:
        yield found


@pytest.fixture
async def outgoing() -> AsyncIterator[Outgoing]:
    """A client that waits for an answer however slow the machine is."""
    async with waiting(60.0) as found:
        yield found


async def send(hook: Receiver, outgoing: Outgoing, *secrets: str) -> Outcome:
    table = hook.channel(*secrets)
    del table["type"]
    return await Webhook.create("ops", table, outgoing).send(NOTIFICATION)


async def test_the_official_library_accepts_the_signature(hook: Receiver, outgoing: Outgoing) -> None:
    assert await send(hook, outgoing) == Outcome("delivered", "200")
    request = hook.received[0]
    request.verify()
    assert request.body == NOTIFICATION.body
    assert request.id == "msg_1"
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(request.body + b" ", request.headers)


async def test_while_secrets_change_both_are_accepted(hook: Receiver, outgoing: Outgoing) -> None:
    await send(hook, outgoing, OTHER_SECRET, SECRET)
    hook.received[0].verify(SECRET)
    hook.received[0].verify(OTHER_SECRET)
    await send(hook, outgoing, OTHER_SECRET)
    with pytest.raises(WebhookVerificationError):
        hook.received[1].verify(SECRET)


def test_openssl_computes_the_same_signature() -> None:
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    headers = signed("msg_1", 1_700_000_000, NOTIFICATION.body, [key])
    made = subprocess.run(
        ["openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", f"hexkey:{key.hex()}", "-binary"],
        input=b"msg_1.1700000000." + NOTIFICATION.body,
        capture_output=True,
        check=True,
    )
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(made.stdout).decode()}"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (status(204), Outcome("delivered", "204")),
        (status(500), Outcome("failed", "500")),
        (status(404), Outcome("failed", "404")),
        (status(302, Location="http://127.0.0.1:1/"), Outcome("failed", "302")),
        (status(307, Location="http://169.254.169.254/latest/meta-data/"), Outcome("failed", "307")),
        (status(304), Outcome("failed", "304")),
        (status(410), Outcome("gone", "410")),
        (status(429, Retry_After="120"), Outcome("failed", "429", 120.0)),
        (status(503, Retry_After="Thu, 01 Jan 1970 00:00:00 GMT"), Outcome("failed", "503")),
        (status(503, Retry_After="soon"), Outcome("failed", "503")),
        (status(503, Retry_After="Mon, 01 Jan 0001 00:00:00 -0000"), Outcome("failed", "503")),
        (status(503, Retry_After="Sat, 01 Jan 0001 00:00:00 +2359"), Outcome("failed", "503")),
        (status(503, Retry_After="Mon, 01 Jan 2020 99999999999999999999:00:00 GMT"), Outcome("failed", "503")),
        (status(503, Retry_After="-1"), Outcome("failed", "503")),
        (status(503, Retry_After="9" * 4_000), Outcome("failed", "503", 999_999_999.0)),
        (status(400, webhook_delivery="abort-message"), Outcome("refused", "400, abort-message")),
        (endless, Outcome("delivered", "200")),
    ],
)
async def test_an_answer_decides_what_follows(
    hook: Receiver, outgoing: Outgoing, answer: Answer, expected: Outcome
) -> None:
    hook.answers.append(answer)
    assert await send(hook, outgoing) == expected
    assert len(hook.received) == 1


@pytest.mark.parametrize("answer", [hang, trickling])
async def test_an_answer_that_does_not_come_in_time_is_a_failure(hook: Receiver, answer: Answer) -> None:
    hook.answers.append(answer)
    async with waiting(1.0) as outgoing:
        assert await send(hook, outgoing) == Outcome("failed", "no answer in 1 s")
    assert len(hook.received) == 1


async def test_garbage_is_a_failure(hook: Receiver, outgoing: Outgoing) -> None:
    hook.answers.append(garbage)
    assert await send(hook, outgoing) == Outcome("failed", "ClientResponseError: 400")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", b"\xff\r\n\r\n"])
@pytest.mark.parametrize("size", [10, 1_000_000])
async def test_no_error_has_the_path_of_the_receiver(outgoing: Outgoing, answer: bytes, size: int) -> None:
    """The endpoint of a push subscription is a secret, and outcomes are shown and logged."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    async with accepting(handle) as port:
        found = await outgoing.post(f"http://127.0.0.1:{port}/SECRET", b"x" * size, {})
    assert found.status == 0
    assert found.reason
    assert "SECRET" not in found.reason
    assert str(port) not in found.reason


async def test_a_url_that_cannot_be_used_is_not_repeated(outgoing: Outgoing) -> None:
    answer = await outgoing.post("http://[SECRET]/SECRET", b"", {})
    assert answer.status == 0
    assert "SECRET" not in answer.reason


async def test_headers_that_do_not_end_are_a_failure_and_are_not_kept(hook: Receiver, outgoing: Outgoing) -> None:
    hook.answers.append(many_headers)
    outcome = await send(hook, outgoing)
    assert outcome.verdict == "failed"
    assert "no answer" not in outcome.reason


async def test_a_receiver_that_is_not_there_is_a_failure(hook: Receiver, outgoing: Outgoing) -> None:
    hook.url = "http://127.0.0.1:1/hook"
    outcome = await send(hook, outgoing)
    assert (outcome.verdict, "refused" in outcome.reason.lower() or "connect" in outcome.reason.lower()) == (
        "failed",
        True,
    )


async def test_a_name_that_is_gone_is_a_failure(hook: Receiver, outgoing: Outgoing) -> None:
    hook.url = "http://receiver.invalid/hook"
    outcome = await send(hook, outgoing)
    assert outcome.verdict == "failed"
    assert outcome.reason


async def test_a_receiver_that_is_slow_again_and_again_does_not_hold_the_sender(hook: Receiver) -> None:
    hook.always = hang
    async with waiting(1.0) as outgoing, asyncio.timeout(60):
        outcomes = await asyncio.gather(*(send(hook, outgoing) for _ in range(50)))
    assert {outcome.verdict for outcome in outcomes} == {"failed"}


async def test_a_certificate_that_nobody_vouches_for_is_a_failure(
    outgoing: Outgoing, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("tls")
    command = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1 -keyout key.pem -out cert.pem"
    await asyncio.to_thread(
        subprocess.run, ["openssl", *command.split()], cwd=directory, check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    found = Receiver("")
    app = web.Application()
    app.router.add_post("/hook", found.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        found.url = f"https://127.0.0.1:{runner.addresses[0][1]}/hook"
        outcome = await send(found, outgoing)
    finally:
        await runner.cleanup()
    assert outcome.verdict == "failed"
    assert "certificate" in outcome.reason.lower()
    assert found.received == []
