"""The activity that streams a text at the pace of a model, or a model's answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from importlib.resources import files
from itertools import cycle
from typing import Any, Final

import aiohttp
import msgspec
from temporalio import activity

from wakeline.streams import PublishDroppedError, WorkflowStreamClient

TOKENS_PER_SECOND: Final = 30
_PROMPT: Final = "In about 400 words: why does durable execution still need durable delivery?"


@activity.defn
async def stream_answer(seconds: float) -> int:
    """Publish an answer to the workflow's stream, token by token; return the number of tokens."""
    count = 0
    # If the workflow is terminated meanwhile, the rest of the events cannot be sent.
    with suppress(PublishDroppedError):
        async with WorkflowStreamClient.from_within_activity(batch_interval=timedelta(milliseconds=100)) as stream:
            deltas = stream.topic("delta", type=dict[str, Any])
            async for token in _tokens(seconds):
                deltas.publish({"text": token})
                activity.heartbeat(count)
                count += 1
    return count


def _tokens(seconds: float) -> AsyncIterator[str]:
    base = os.environ.get("OPENAI_BASE_URL")
    return from_model(base) if base else from_text(seconds)


async def from_text(seconds: float) -> AsyncIterator[str]:
    """Yield the words of the text that ships with the demo, repeatedly, for `seconds`."""
    words = (files("wakeline.cli.demo") / "answer.txt").read_text().split(" ")
    for number, word in zip(range(int(seconds * TOKENS_PER_SECOND)), cycle(words), strict=False):
        yield word if number == 0 else f" {word}"
        await asyncio.sleep(1 / TOKENS_PER_SECOND)


async def from_model(base: str) -> AsyncIterator[str]:
    """Yield the tokens of an OpenAI-compatible endpoint.

    `OPENAI_API_KEY` and `OPENAI_MODEL` apply.
    """
    asked = {
        "model": os.environ.get("OPENAI_MODEL", "gpt-4o-mini"),
        "messages": [{"role": "user", "content": _PROMPT}],
        "stream": True,
    }
    headers = {"Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', '')}"}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300, sock_read=60)) as http,
        http.post(f"{base.rstrip('/')}/chat/completions", json=asked, headers=headers) as answer,
    ):
        answer.raise_for_status()
        async for line in answer.content:
            data = line.strip().removeprefix(b"data:").strip()
            if not line.startswith(b"data:") or data == b"[DONE]":
                continue
            choices = msgspec.json.decode(data).get("choices") or [{}]
            if text := choices[0].get("delta", {}).get("content"):
                yield text
