"""Runs the gateway, the agent, the laptop and the phone, and prints what each of them sees."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
import uuid

from joserfc import jwt
from joserfc.jwk import OctKey
from temporalio.client import Client
from temporalio.worker import Worker

from examples.approval.phone import Phone
from examples.approval.workflows import Agent, PaymentWorkflow
from examples.stage import Example, expect
from wakeline.client import SessionClient
from wakeline.gateway.app import gateway
from wakeline.gateway.rules import Notify
from wakeline.gateway.settings import Settings

EXPECTED = """
[laptop] the agent wants to pay order-7
[laptop] asked: Pay 12 EUR to ACME?
[phone] notified: Pay 12 EUR to ACME?
[phone] answers: approve
[laptop] resolved: approve, by ada on her phone
[laptop] order-7 is paid
[laptop] the run completed
workflow result: paid
"""


async def laptop(url: str, token: str, session: str) -> None:
    """Print what a device sees that is open on a desk, where nobody looks."""
    async with SessionClient(url, token=token) as client:
        topics = ["status", "$input.requested", "$input.resolved", "$run.closed"]
        async for event in client.session(session).events(topics=topics, until="settled", device="laptop"):
            match event.topic:
                case "$input.requested":
                    print(f"[laptop] asked: {event.data['message']}")
                case "$input.resolved":
                    print(
                        f"[laptop] resolved: {event.data['payload']}, by {event.data['by']} on her {event.data['device']}"
                    )
                case "$run.closed":
                    print(f"[laptop] the run {event.data['status']}")
                case _:
                    print(f"[laptop] {event.data}")


async def play(client: Client, queue: str) -> None:
    """Run the gateway, the agent, the laptop and the phone."""
    key = secrets.token_hex(32)

    def token(user: str, **scope: list[str]) -> str:
        claims = {"sub": user, "exp": int(time.time()) + 600, "wakeline": scope}
        return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(key))

    agents = token("agents", sessions=["payment-*"], allow=["publish"])
    ada = token("ada", sessions=["payment-*"], allow=["read", "ack", "input"], inputs=["$answer.approval"])
    session = f"payment-{uuid.uuid4().hex[:8]}"
    async with Phone() as phone:
        with tempfile.TemporaryDirectory() as data:
            settings = Settings(
                data=data,
                port=0,
                temporal=client.service_client.config.target_host,
                token_secret=key,
                notify={"questions": Notify(topics=("$input.requested",), grace=1.0)},
                channels={"phone": {"type": "webhook", "url": phone.url, "secrets": [phone.secret]}},
                outgoing_networks=("127.0.0.0/8",),  # in production the phone is not on the gateway's own network
            )
            async with (
                gateway(settings) as url,
                Worker(client, task_queue=f"{queue}-agents", activities=[Agent(url, agents).pay]),
            ):
                handle = await client.start_workflow(
                    PaymentWorkflow.run, args=["order-7", f"{queue}-agents"], id=session, task_queue=queue
                )
                watching = asyncio.create_task(laptop(url, ada, session))
                event = await phone.notified()
                print(f"[phone] notified: {event['data']['message']}")
                print("[phone] answers: approve")
                await phone.answer(url, ada, session, event["data"]["id"], "approve")
                await watching
                print(f"workflow result: {await handle.result()}")


def check(lines: list[str]) -> None:
    """Compare what the devices and the workflow have printed; the gateway's log is among the lines."""
    expect([line for line in lines if line.startswith(("[", "workflow"))], EXPECTED)


EXAMPLE = Example("approval", play, check, [PaymentWorkflow])
