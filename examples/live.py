"""What the examples of the integrations run on: a gateway, a model that streams, and a device that watches.

`python -m examples.live` runs all of them, `python -m examples.openai` one. They need what `make .venv/.dev` installs. The model
is OpenAI's, or whichever `OPENAI_BASE_URL` and `OPENAI_MODEL` name, where `OPENAI_API_KEY` is set; else a local fake answers,
and what is printed is compared with what must be.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from openai import AsyncOpenAI
from temporalio.client import Client

from examples.fake_openai import FakeOpenAI, Turn
from examples.stage import expect
from wakeline.cli.processes import TemporalServer
from wakeline.client import SessionClient
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import Settings

NAMES = ["openai", "pydantic_ai", "langgraph", "openai_agents", "worker_plugin"]
_LIMIT = 120


@dataclass(frozen=True)
class Live:
    """What runs while an example is played.

    Attributes:
        url: The gateway.
        openai: OpenAI's client, talking to the model.
        model: The model's name.
        temporal: A client of a Temporal dev server.
        shown: The lines that were shown.
    """

    url: str
    openai: AsyncOpenAI
    model: str
    temporal: Client | None = None
    shown: list[str] = field(default_factory=list)

    def show(self, *words: str) -> None:
        """Print a line."""
        self.shown.append(" ".join(words))
        print(self.shown[-1], flush=True)

    @asynccontextmanager
    async def watched(self, name: str, topics: Sequence[str]) -> AsyncIterator[None]:
        """Have a device print what comes in a session until this block ends."""
        async with SessionClient(self.url) as client:
            session = client.session(name)
            await session.create()
            device = asyncio.create_task(self._print(client, name, topics))
            try:
                yield
            finally:
                await session.close()
                await device

    async def _print(self, client: SessionClient, name: str, topics: Sequence[str]) -> None:
        async for event in client.session(name).events(topics=topics):
            if json.loads(event.raw).get("message", {}).get("complete"):
                self.show(f"[{event.topic}] complete")
            elif event.topic == "step":
                self.show(f"[{event.topic}] {event.data['name']} {event.data['state']}")
            else:
                self.show(f"[{event.topic}] {json.dumps(event.data)}")


@dataclass(frozen=True)
class LiveExample:
    """One example.

    Attributes:
        name: Its folder.
        play: The program; prints what there is to see.
        script: What the fake says.
        expected: What is printed then.
        needs_temporal: Whether it needs a Temporal server.
    """

    name: str
    play: Callable[[Live], Awaitable[None]]
    script: Sequence[Turn]
    expected: str
    needs_temporal: bool = False


async def play(example: LiveExample) -> None:
    """Run an example and, with the fake, check its output.

    Raises:
        AssertionError: It printed something else than it must.
    """
    async with AsyncExitStack() as stack:
        data = stack.enter_context(tempfile.TemporaryDirectory())
        url = await stack.enter_async_context(gateway(Settings(data=data, port=0, no_auth=True)))
        real = "OPENAI_API_KEY" in os.environ
        if real:
            openai, model = AsyncOpenAI(max_retries=0), os.environ.get("OPENAI_MODEL", "gpt-4.1-mini")
        else:
            fake = await stack.enter_async_context(FakeOpenAI(example.script))
            openai, model = AsyncOpenAI(base_url=fake.url, api_key="none", max_retries=0), "fake-1"
        await stack.enter_async_context(openai)
        temporal = await stack.enter_async_context(_temporal()) if example.needs_temporal else None
        live = Live(url, openai, model, temporal)
        await asyncio.wait_for(example.play(live), _LIMIT)
    if not real:
        expect(live.shown, example.expected)


@asynccontextmanager
async def _temporal() -> AsyncIterator[Client]:
    server = TemporalServer()
    await server.start()
    try:
        yield await server.ready()
    finally:
        await server.stop()


def main(*examples: LiveExample) -> None:
    """Run examples and exit with 1 if one failed."""
    failed = 0
    for example in examples:
        print(f"== {example.name}", flush=True)
        try:
            asyncio.run(play(example))
        except (AssertionError, TimeoutError) as error:
            failed += 1
            print(f"-- {example.name} FAILED: {error}\n", flush=True)
        else:
            print(f"-- {example.name} as expected\n", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main(*(importlib.import_module(f"examples.{name}.__main__").EXAMPLE for name in NAMES))
