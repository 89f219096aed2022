"""Plays a page with HttpAgent: the requests of AG-UI's client, and what the events of its runs show."""

from __future__ import annotations

import uuid
from typing import Any

import aiohttp
from temporalio.client import Client

from examples.chat_ai_sdk.play import chunks, served
from examples.chat_ai_sdk.workflows import ChatWorkflow
from examples.stage import Example, expect

EXPECTED = """
[user] How is the weather?
[answer] It is snow
[answer] taken back
[answer] It is sunny in Oslo.
[run] finished: success
[user] Please pay the bill.
[tool] pay {"amount":12,"to":"ACME"}
[run] finished: interrupt
[asked] Pay 12 EUR to ACME?
[page] approves
[tool] returned {"paid":12}
[answer] The bill is paid.
[run] finished: success
[other device] user, assistant, user, assistant, tool, assistant
"""


class Page:
    """What a page shows of a thread: each message once, when it is whole."""

    def __init__(self) -> None:
        self._text = ""
        self._shown: set[str] = set()
        self._whole: dict[str, dict[str, Any]] = {}  # messages of a snapshot that are to be shown

    async def show(self, answer: aiohttp.ClientResponse) -> dict[str, Any]:
        """Print what is new in a run; return its last event."""
        event: dict[str, Any] = {}
        async for event in chunks(answer):
            match event["type"]:
                case "MESSAGES_SNAPSHOT":
                    if self._text:
                        print(f"[answer] {self._text}\n[answer] taken back")
                    self._text = ""
                    self._whole = {message["id"]: message for message in event["messages"]}
                case "TEXT_MESSAGE_START":  # goes on from what the snapshot has of it
                    self._text = self._whole.pop(event["messageId"], {}).get("content", "")
                case "TEXT_MESSAGE_CONTENT":
                    self._text += event["delta"]
                case "TEXT_MESSAGE_END" if self._text and not self._text.endswith("snow"):
                    self._print(event["messageId"], f"[answer] {self._text}")
                    self._text = ""
                case "TOOL_CALL_ARGS":
                    self._print(f"call:{event['toolCallId']}", f"[tool] pay {event['delta']}")
                case "TOOL_CALL_RESULT":
                    self._print(f"result:{event['toolCallId']}", f"[tool] returned {event['content']}")
        self._print_whole()
        print(f"[run] finished: {event['outcome']['type']}")
        return event

    def _print(self, id: str, line: str) -> None:
        self._print_whole()
        if id not in self._shown:
            print(line)
        self._shown.add(id)

    def _print_whole(self) -> None:
        """Print what had become whole before the run was joined."""
        whole, self._whole = self._whole, {}
        for id, message in whole.items():
            match message:
                case {"role": "tool", "content": content}:
                    self._print(id, f"[tool] returned {content}")
                case {"role": "assistant", "toolCalls": [{"function": {"arguments": arguments}}]}:
                    self._print(id, f"[tool] pay {arguments}")
                case {"role": "assistant", "content": content}:
                    self._print(id, f"[answer] {content}")


async def play(client: Client, _: str) -> None:
    """Send two messages and answer an interrupt as a page does, and connect from another device."""
    chat = f"chat-{uuid.uuid4().hex[:8]}"
    async with served(client, f"chats-{chat}") as url, aiohttp.ClientSession(url) as http:
        page, last = Page(), dict[str, Any]()

        async def run(**input: Any) -> dict[str, Any]:
            body = {"threadId": chat, "runId": str(uuid.uuid4()), "messages": [], **input}
            async with http.post(f"/v1/ag-ui/{chat}", json=body) as answer:
                return await page.show(answer)

        for number, text in enumerate(["How is the weather?", "Please pay the bill."]):
            print(f"[user] {text}")
            last = await run(messages=[{"id": f"user-{number}", "role": "user", "content": text}])
        (interrupt,) = last["outcome"]["interrupts"]
        print(f"[asked] {interrupt['message']}\n[page] approves")
        await run(resume=[{"interruptId": interrupt["id"], "status": "resolved", "payload": "approve"}])
        async with http.get(f"/v1/ag-ui/{chat}") as answer:
            snapshot = [event async for event in chunks(answer)][1]
        print(f"[other device] {', '.join(message['role'] for message in snapshot['messages'])}")
        await client.get_workflow_handle(chat).terminate()


def check(lines: list[str]) -> None:
    """Compare what the page has shown; the gateway's log is among the lines."""
    expect([line for line in lines if line.startswith("[")], EXPECTED)


EXAMPLE = Example("chat_ag_ui", play, check, [ChatWorkflow])
