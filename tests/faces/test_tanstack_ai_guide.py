"""The workflow of the guide for TanStack AI: each way in which an answer ends is the same on all pages."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.docs.pages import blocks
from tests.durable import JSON
from tests.faces.chats import gateway
from tests.faces.pages import Page, page
from tests.faces.test_tanstack_ai import shown, until_shown
from tests.gateways import GatewayProcess

QUESTION = ("user", "How is the weather?")


class Model:
    """Says what the test tells it to; an exception is raised, and None ends an answer."""

    def __init__(self) -> None:
        self.words: asyncio.Queue[str | Exception | None] = asyncio.Queue()

    async def __call__(self, messages: list[Any]) -> AsyncIterator[str]:
        while (word := await self.words.get()) is not None:
            if isinstance(word, Exception):
                raise word
            yield word

    def say(self, *words: str | Exception | None) -> None:
        for word in words:
            self.words.put_nowait(word)


@pytest.fixture
async def model(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Model]:
    """The model of the guide's program, whose worker runs."""
    (program,) = (block for block in blocks("docs/how-to/tanstack-ai.md") if block.file == "chat.py")
    (tmp_path / "tanstack_ai_chat.py").write_text(program.padded(), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("tanstack_ai_chat")
    model = Model()
    monkeypatch.setattr(module, "model", model)
    activities = [module.answer, module.end]
    how: dict[str, Any] = {"max_heartbeat_throttle_interval": timedelta(seconds=1)}
    async with Worker(client, task_queue="tanstack-ai", workflows=[module.Chat], activities=activities, **how):
        yield model


@pytest.fixture
async def running(
    temporal: WorkflowEnvironment, chat: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forks: None
) -> AsyncIterator[GatewayProcess]:
    start = {"chat": {"sessions": ["chat-*"], "workflow_type": "Chat", "task_queue": "tanstack-ai"}}
    async with gateway(temporal, tmp_path, WAKELINE_INPUTS=json.dumps({"start": start})) as started:
        monkeypatch.setenv("WAKELINE_URL", started.url)
        async with aiohttp.ClientSession(started.url, headers=JSON) as http, http.put(f"/v1/stream/{chat}") as answer:
            assert answer.status == 201
        yield started


async def until_ready(on: Page, *messages: tuple[str, str]) -> None:
    state = await on.until(
        lambda state: shown(state) == list(messages) and not state["generating"] and state["status"] == "ready"
    )
    assert (state["status"], state["errors"]) == ("ready", [])


async def test_a_retry_and_another_answer_replace_what_was_said(
    running: GatewayProcess, chat: str, model: Model
) -> None:
    async with (
        page("tanstack_ai_page.mjs", running.url, chat) as laptop,
        page("tanstack_ai_page.mjs", running.url, chat) as phone,
    ):
        await laptop.do("send", text=QUESTION[1])
        model.say("It is ", "sno")
        for each in (laptop, phone):
            await until_shown(each, QUESTION, ("assistant", "It is sno"))
        model.say(RuntimeError("the model is away"), "It is ", "sunny.", None)
        for each in (laptop, phone):
            await until_ready(each, QUESTION, ("assistant", "It is sunny."))
        await laptop.do("reload")
        model.say("It is warm.", None)
        for each in (laptop, phone):
            await until_ready(each, QUESTION, ("assistant", "It is warm."))
        await phone.do("send", text="And tomorrow?")
        model.say("The same.", None)
        rest = (("user", "And tomorrow?"), ("assistant", "The same."))
        for each in (laptop, phone):
            await until_ready(each, QUESTION, ("assistant", "It is warm."), *rest)


async def test_the_signal_stops_an_answer_and_keeps_what_it_has_said(
    running: GatewayProcess, chat: str, model: Model
) -> None:
    async with page("tanstack_ai_page.mjs", running.url, chat) as laptop:
        await laptop.do("send", text=QUESTION[1])
        model.say("It is ")
        await until_shown(laptop, QUESTION, ("assistant", "It is "))
        stop = {"id": "stop-1", "kind": "signal", "name": "stop"}
        async with (
            aiohttp.ClientSession(running.url) as http,
            http.post(f"/v1/sessions/{chat}/inputs", json=stop) as got,
        ):
            assert (await got.json())["status"] == "completed"
        await until_ready(laptop, QUESTION, ("assistant", "It is "))


async def test_a_failed_answer_is_an_error_of_the_page(running: GatewayProcess, chat: str, model: Model) -> None:
    async with page("tanstack_ai_page.mjs", running.url, chat) as laptop:
        await laptop.do("send", text=QUESTION[1])
        model.say("It is ", ApplicationError("no such model", non_retryable=True))
        state = await laptop.until(lambda state: state["status"] == "error")
        assert (state["errors"], shown(state)[0]) == (["no such model"], QUESTION)
