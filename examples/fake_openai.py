"""A local server that speaks OpenAI's HTTP API: chat completions and responses, streamed and whole.

What it says is scripted, a turn for each request. Written from the API's reference; the real `openai` package reads it in
`test_openai.py`, and is what all the other libraries call it with.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

MODEL = "fake-1"


@dataclass
class Tool:
    """A call of a function: `arguments` is its JSON, in the pieces in which it streams."""

    id: str
    name: str
    arguments: list[str]


@dataclass
class Turn:
    """One answer of the model.

    Attributes:
        text: What it says, in pieces.
        refusal: What it says in place of that, if it refuses.
        tools: What it calls.
        hold: Before which pieces it waits for the event, by number; the end is the number after the last.
        cut: The connection is cut before the piece of this number.
        error: A status and a message that it answers with instead.
        failure: What a response fails with after its text.
        incomplete: Why a response ends early after its text.
    """

    text: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    tools: list[Tool] = field(default_factory=list)
    hold: dict[int, asyncio.Event] = field(default_factory=dict)
    cut: int | None = None
    error: tuple[int, str] | None = None
    failure: tuple[str, str] | None = None
    incomplete: str | None = None


class _CutError(Exception):
    """The connection is to be cut."""


class FakeOpenAI:
    """The server, as a context manager.

    Args:
        turns: What it says, a turn for each request, in order.

    Attributes:
        url: The `base_url` for clients.
        requests: The bodies that came.
        gone: How many clients left before the end of their stream.
    """

    def __init__(self, turns: Iterable[Turn] = ()) -> None:
        self.turns = deque(turns)
        self.requests: list[dict[str, Any]] = []
        self.gone = 0
        self._numbers = 0

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/responses", self._response)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _turn(self, request: web.Request) -> tuple[dict[str, Any], Turn, int]:
        body: dict[str, Any] = await request.json()
        self.requests.append(body)
        self._numbers += 1
        turn = self.turns.popleft() if self.turns else Turn(error=(500, "the script is over"))
        return body, turn, self._numbers

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body, turn, number = await self._turn(request)
        if turn.error is not None:
            return _refusal(*turn.error)
        if not body.get("stream"):
            return web.json_response(_completion(turn, number))
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        return await self._send(request, (f"data: {data}\n\n" async for data in _chat_stream(turn, number, usage)))

    async def _response(self, request: web.Request) -> web.StreamResponse:
        body, turn, number = await self._turn(request)
        if turn.error is not None:
            return _refusal(*turn.error)
        if not body.get("stream"):
            return web.json_response(_whole(turn, number, "completed", _items(turn, number)))
        return await self._send(request, _response_stream(turn, number))

    async def _send(self, request: web.Request, frames: AsyncIterator[str]) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        try:
            async for frame in frames:
                await answer.write(frame.encode())
        except _CutError:
            assert request.transport is not None
            request.transport.abort()
            return answer
        except (asyncio.CancelledError, ConnectionError):
            self.gone += 1
            raise
        await answer.write_eof()
        return answer


def _refusal(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "server_error", "param": None, "code": None}
    return web.json_response({"error": error}, status=status)


async def _pieces(turn: Turn, pieces: list[str]) -> AsyncIterator[str]:
    """The pieces, each when it is due."""
    for number in range(len(pieces) + 1):
        if number in turn.hold:
            await turn.hold[number].wait()
        if turn.cut == number:
            raise _CutError
        if number < len(pieces):
            yield pieces[number]


def _tokens(turn: Turn) -> tuple[int, int]:
    return 7, len(turn.text) + len(turn.refusal) + sum(len(tool.arguments) for tool in turn.tools)


def _chat_usage(turn: Turn) -> dict[str, int]:
    taken, given = _tokens(turn)
    return {"prompt_tokens": taken, "completion_tokens": given, "total_tokens": taken + given}


async def _chat_stream(turn: Turn, number: int, usage: bool) -> AsyncIterator[str]:
    head = {"id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": MODEL}

    def chunk(delta: dict[str, Any], reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return json.dumps({**head, "choices": [choice], **({"usage": None} if usage else {})})

    yield chunk({"role": "assistant", "content": "", "refusal": None})
    kind = "refusal" if turn.refusal else "content"
    async for piece in _pieces(turn, turn.refusal or turn.text):
        yield chunk({kind: piece})
    for index, tool in enumerate(turn.tools):
        function = {"name": tool.name, "arguments": ""}
        yield chunk({"tool_calls": [{"index": index, "id": tool.id, "type": "function", "function": function}]})
        for piece in tool.arguments:
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk({}, "tool_calls" if turn.tools else "stop")
    if usage:
        yield json.dumps({**head, "choices": [], "usage": _chat_usage(turn)})
    yield "[DONE]"


def _completion(turn: Turn, number: int) -> dict[str, Any]:
    calls = [
        {"id": tool.id, "type": "function", "function": {"name": tool.name, "arguments": "".join(tool.arguments)}}
        for tool in turn.tools
    ]
    message = {"role": "assistant", "content": "".join(turn.text) or None, "refusal": "".join(turn.refusal) or None}
    if calls:
        message["tool_calls"] = calls  # type: ignore[assignment] # the other members are strings
    reason = "tool_calls" if calls else "stop"
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
        "usage": _chat_usage(turn),
    }


def _part(turn: Turn) -> dict[str, Any]:
    if turn.refusal:
        return {"type": "refusal", "refusal": "".join(turn.refusal)}
    return {"type": "output_text", "text": "".join(turn.text), "annotations": [], "logprobs": []}


def _items(turn: Turn, number: int) -> list[dict[str, Any]]:
    """The output items of a response, complete."""
    items: list[dict[str, Any]] = []
    if turn.text or turn.refusal:
        items.append({"id": f"msg_{number}", "type": "message", "role": "assistant", "status": "completed"})
        items[-1]["content"] = [_part(turn)]
    for tool in turn.tools:
        item = {"id": f"fc_{tool.id}", "type": "function_call", "call_id": tool.id, "name": tool.name}
        items.append({**item, "arguments": "".join(tool.arguments), "status": "completed"})
    return items


def _whole(turn: Turn, number: int, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    taken, given = _tokens(turn)
    usage = {
        "input_tokens": taken,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": given,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": taken + given,
    }
    error = turn.failure and {"code": turn.failure[0], "message": turn.failure[1]}
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": status,
        "error": error if status == "failed" else None,
        "incomplete_details": {"reason": turn.incomplete} if status == "incomplete" else None,
        "instructions": None,
        "metadata": {},
        "model": MODEL,
        "output": output,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": None if status == "in_progress" else usage,
    }


async def _response_stream(turn: Turn, number: int) -> AsyncIterator[str]:
    """The frames: each is named by its type, and numbered."""
    count = 0
    async for type, fields in _response_events(turn, number):
        data = json.dumps({"type": type, "sequence_number": count, **fields})
        yield f"event: {type}\ndata: {data}\n\n"
        count += 1


async def _response_events(turn: Turn, number: int) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    yield "response.created", {"response": _whole(turn, number, "in_progress", [])}
    yield "response.in_progress", {"response": _whole(turn, number, "in_progress", [])}
    items = _items(turn, number)
    for index, item in enumerate(items):
        at = {"item_id": item["id"], "output_index": index}
        if item["type"] == "message":
            yield (
                "response.output_item.added",
                {"output_index": index, "item": {**item, "status": "in_progress", "content": []}},
            )
            async for event in _message_events(turn, {**at, "content_index": 0}):
                yield event
        else:
            yield (
                "response.output_item.added",
                {"output_index": index, "item": {**item, "status": "in_progress", "arguments": ""}},
            )
            for piece in turn.tools[index - len(items) + len(turn.tools)].arguments:
                yield "response.function_call_arguments.delta", {**at, "delta": piece}
            done = {**at, "name": item["name"], "arguments": item["arguments"]}
            yield "response.function_call_arguments.done", done
        yield "response.output_item.done", {"output_index": index, "item": item}
    status = "failed" if turn.failure else "incomplete" if turn.incomplete else "completed"
    yield f"response.{status}", {"response": _whole(turn, number, status, items)}


async def _message_events(turn: Turn, at: dict[str, Any]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    part = _part(turn)
    if turn.refusal:
        yield "response.content_part.added", {**at, "part": {**part, "refusal": ""}}
        async for piece in _pieces(turn, turn.refusal):
            yield "response.refusal.delta", {**at, "delta": piece}
        yield "response.refusal.done", {**at, "refusal": part["refusal"]}
    else:
        yield "response.content_part.added", {**at, "part": {**part, "text": ""}}
        async for piece in _pieces(turn, turn.text):
            yield "response.output_text.delta", {**at, "delta": piece, "logprobs": []}
        yield "response.output_text.done", {**at, "text": part["text"], "logprobs": []}
    yield "response.content_part.done", {**at, "part": part}
