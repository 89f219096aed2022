"""Plays a page with useChat: the requests of the AI SDK's transport, and what their streams show."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import aiohttp
from temporalio.client import Client
from temporalio.worker import Worker

from examples.chat_ai_sdk.workflows import Assistant, ChatWorkflow
from examples.stage import Example, expect
from wakeline.gateway.app import gateway
from wakeline.gateway.rules import Face, InputRules, Start
from wakeline.gateway.settings import Settings

EXPECTED = """
[user] How is the weather?
[answer] It is snow
[answer] taken back
[answer] It is sunny in Oslo.
[user] Please pay the bill.
[tool] pay {"amount": 12, "to": "ACME"}
[tool] asks: Pay 12 EUR to ACME?
[page] approves
[tool] approved
[tool] returned {"paid": 12}
[answer] The bill is paid.
[other device] user, assistant, user, assistant
"""


def settings(client: Client, queue: str, **more: Any) -> Settings:
    """Return the settings of a gateway for chats, whose first message starts the workflow."""
    start = Start(sessions=("chat-*",), workflow_type="ChatWorkflow", task_queue=queue)
    return Settings(
        temporal=client.service_client.config.target_host,
        no_auth=True,
        inputs=InputRules(start={"chat": start}),
        faces={"chat": Face(sessions=("chat-*",), kind="update", name="message", start="chat", stop="stop")},
        **more,
    )


@asynccontextmanager
async def served(client: Client, queue: str, port: int = 0) -> AsyncIterator[str]:
    """Run a gateway and the chats' worker; yield the gateway's URL."""
    with tempfile.TemporaryDirectory() as data:
        async with gateway(settings(client, queue, data=data, port=port)) as url:
            assistant = Assistant(url)
            async with Worker(
                client,
                task_queue=queue,
                workflows=[ChatWorkflow],
                activities=[assistant.answer],
                max_heartbeat_throttle_interval=timedelta(seconds=1),  # so that a stop reaches the activity soon
            ):
                yield url


async def chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Yield the chunks of a UI message stream."""
    answer.raise_for_status()
    async for line in answer.content:
        data = line.decode().strip().removeprefix("data: ")
        if data.startswith("{"):
            yield json.loads(data)


async def show(answer: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    """Print what a page shows of an answer; return the approvals that it asks for."""
    text, asked = "", list[dict[str, Any]]()
    async for chunk in chunks(answer):
        match chunk["type"]:
            case "text-delta":
                text += chunk["delta"]
            case "reset-step" if text:
                print(f"[answer] {text}\n[answer] taken back")
                text = ""
            case "text-end":
                print(f"[answer] {text}")
            case "tool-input-available" if not asked:
                print(f"[tool] {chunk['toolName']} {json.dumps(chunk['input'])}")
            case "tool-approval-request":
                asked.append(chunk)
            case "tool-approval-response":
                print("[tool] approved" if chunk["approved"] else "[tool] denied")
            case "tool-output-available":
                print(f"[tool] returned {json.dumps(chunk['output'])}")
    return asked


async def play(client: Client, _: str) -> None:
    """Send two messages and an approval as a page does, and load the chat on another device."""
    chat = f"chat-{uuid.uuid4().hex[:8]}"
    async with served(client, f"chats-{chat}") as url, aiohttp.ClientSession(url) as http:

        async def post(*messages: dict[str, Any]) -> list[dict[str, Any]]:
            async with http.post("/v1/ai", json={"id": chat, "messages": messages}) as answer:
                return await show(answer)

        for number, text in enumerate(["How is the weather?", "Please pay the bill."]):
            print(f"[user] {text}")
            asked = await post({"id": f"user-{number}", "role": "user", "parts": [{"type": "text", "text": text}]})
        (request,) = asked
        print(f"[tool] asks: {request['reason']}\n[page] approves")
        approval = {"id": request["approvalId"], "approved": True}
        tool = {"type": "tool-pay", "toolCallId": request["toolCallId"], "state": "approval-responded"}
        parts = [{"type": "step-start"}, {**tool, "approval": approval}]
        await post({"id": "the answer", "role": "assistant", "parts": parts})
        async with http.get(f"/v1/ai/{chat}/messages") as answer:
            loaded = (await answer.json())["messages"]
        print(f"[other device] {', '.join(message['role'] for message in loaded)}")
        await client.get_workflow_handle(chat).terminate()


def check(lines: list[str]) -> None:
    """Compare what the page has shown; the gateway's log is among the lines."""
    shown = [line for line in lines if line.startswith("[")]
    # The page receives the tool call again with its approval, in the step that it continues.
    expect(list(dict.fromkeys(shown)), EXPECTED)


EXAMPLE = Example("chat_ai_sdk", play, check, [ChatWorkflow])
