"""The demo's agent against a model provider that speaks the real protocol."""

from __future__ import annotations

import json

import pytest
from aiohttp import web

from wakeline.cli.demo.agent import from_model, from_text


async def test_tokens_of_an_openai_compatible_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    async def completions(request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"] == "Bearer secret"
        asked.append(await request.json())
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        chunks = [{"role": "assistant", "content": ""}, {"content": "Du"}, {"content": "rable"}, {}]
        for delta in chunks:
            chunk = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]}
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        await response.write(b'data: {"choices":[],"usage":{"total_tokens":3}}\n\ndata: [DONE]\n\n')
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", completions)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("OPENAI_MODEL", "tiny")
    host, port = runner.addresses[0]
    tokens = [token async for token in from_model(f"http://{host}:{port}/v1/")]
    await runner.cleanup()
    assert tokens == ["Du", "rable"]
    assert (asked[0]["model"], asked[0]["stream"]) == ("tiny", True)


async def test_the_text_that_ships_is_streamed_word_by_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wakeline.cli.demo.agent.TOKENS_PER_SECOND", 1000)
    tokens = [token async for token in from_text(0.05)]
    assert len(tokens) == 50
    assert "".join(tokens).startswith("A workflow engine makes sure that work survives. ")
