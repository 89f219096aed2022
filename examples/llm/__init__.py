"""The output of a language model whose first attempt fails half way.

What the failed attempt said stays in the stream, so the activity publishes a `retry` event and the consumer clears what
it shows. A `close` event tells the consumer that it has everything. It may acknowledge it, which is where a workflow that
must know it was seen waits; a workflow that need not know returns at once, and loses nothing by it.
"""

from __future__ import annotations

import uuid

from temporalio.client import Client

from examples.llm.workflows import ChatInput, ChatWorkflow, stream_completion
from examples.stage import Example, expect
from wakeline.streams import WorkflowStreamClient

EXPECTED = """
[with ack] cleared 'Durable execution ' for attempt 2
[with ack] Durable execution outlives its processes.
[with ack] workflow result: Durable execution outlives its processes.; acknowledged: True
[without ack] cleared 'Durable execution ' for attempt 2
[without ack] Durable execution outlives its processes.
[without ack] workflow result: Durable execution outlives its processes.; acknowledged: False
"""


async def chat(client: Client, queue: str, wait_for_ack: bool) -> None:
    """Ask, and show the answer as it comes."""
    name = "with ack" if wait_for_ack else "without ack"
    handle = await client.start_workflow(
        ChatWorkflow.run,
        ChatInput("What is durable execution?", wait_for_ack),
        id=f"chat-{uuid.uuid4().hex[:8]}",
        task_queue=queue,
    )
    shown: list[str] = []
    async for item in WorkflowStreamClient.create(client, handle.id).subscribe(["delta", "retry", "close"]):
        if item.topic == "retry":
            print(f"[{name}] cleared {''.join(shown)!r} for attempt {item.data}")
            shown.clear()
        elif item.topic == "delta":
            shown.append(item.data)
        else:
            if wait_for_ack:
                await handle.signal(ChatWorkflow.acknowledge)
            break
    print(f"[{name}] {''.join(shown)}")
    print(f"[{name}] workflow result: {await handle.result()}")


async def play(client: Client, queue: str) -> None:
    """Once with an acknowledgment, once without."""
    await chat(client, queue, wait_for_ack=True)
    await chat(client, queue, wait_for_ack=False)


EXAMPLE = Example("llm", play, lambda lines: expect(lines, EXPECTED), [ChatWorkflow], [stream_completion])
