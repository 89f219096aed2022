"""The guides: their code runs as it stands, and the examples print what they must."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from examples import live
from examples.fake_openai import FakeOpenAI, Tool, Turn
from temporalio.client import Client

from tests.docs.markdown import blocks, spans, tables, text
from tests.integrations.support import events_of, messages, under
from tests.support import Served
from wakeline.integrations.output import Topics
from wakeline.integrations.temporal import SessionInterceptor, WakelinePlugin

SECONDS = 60


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, served: Served, fake: FakeOpenAI, client: Client) -> Iterator[None]:
    """What a reader of the guides would have: a gateway, a model, Temporal at its usual address."""
    monkeypatch.setenv("WAKELINE_URL", served.url)
    monkeypatch.setenv("OPENAI_BASE_URL", fake.url)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    connect = Client.connect

    async def connect_here(target: str, **options: Any) -> Client:
        usual = target == "localhost:7233"
        return await connect(client.service_client.config.target_host if usual else target, **options)

    monkeypatch.setattr(Client, "connect", connect_here)
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if name == "orders":
            del sys.modules[name]


async def run(code: str, names: dict[str, Any]) -> None:
    compiled = compile(code, "guide", "exec", dont_inherit=True)
    await asyncio.wait_for(asyncio.to_thread(exec, compiled, names), SECONDS)


async def test_the_code_of_integrations_runs(fake: FakeOpenAI, served: Served) -> None:
    call = Tool("c1", "weather", ['{"city": "Bern"}'])
    fake.turns.extend(
        [Turn(text=["one"]), Turn(text=["two"]), Turn(tools=[call]), Turn(text=["three"]), Turn(text=["four"])]
    )
    for code in blocks(text("docs/how-to/integrations.md"), "python"):
        await run(code, {"__name__": "guide"})
    assert not fake.turns
    for session, said in [("chat-1", ["one", "two"]), ("chat-2", ["three"]), ("chat-3", ["four"])]:
        assert list(messages(await events_of(served, session)).values()) == [(one, True) for one in said]


async def test_the_code_of_the_worker_plugin_runs(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for code in blocks(text("docs/how-to/worker-plugin.md"), "python"):
        first = code.splitlines()[0]
        if first.startswith("# ") and first.endswith(".py"):
            (tmp_path / first.removeprefix("# ")).write_text(code, encoding="utf-8")
        else:
            await run(code, {"__name__": "guide"})
    events = await events_of(served, "order-1")
    assert under(events, "status") == [{"order": "order-1", "packed": "book"}, {"order": "order-1", "label": "printed"}]
    assert [told["state"] for told in under(events, "activity")] == ["started", "completed"] * 2


def test_every_option_of_the_plugin_is_named() -> None:
    rows = tables(text("docs/how-to/worker-plugin.md"))[-1]
    named = [name for row in rows for name in spans(row["argument"])]
    assert named == list(inspect.signature(WakelinePlugin).parameters)
    by_hand = [{"nudge": "nudger"}.get(name, name) for name in named]
    assert by_hand == list(inspect.signature(SessionInterceptor).parameters)


def test_every_topic_is_named() -> None:
    rows = tables(text("docs/how-to/integrations.md"))[1]
    topics = Topics()
    assert [spans(row["topic"])[0] for row in rows] == [topics.text, topics.tools, topics.steps, topics.usage]


@pytest.mark.parametrize("name", live.NAMES)
async def test_an_example_prints_what_it_must(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    await asyncio.wait_for(live.play(import_module(f"examples.{name}.__main__").EXAMPLE), SECONDS)
