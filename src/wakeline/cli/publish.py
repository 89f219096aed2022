"""`wakeline publish`: append events to a session."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import aiohttp
import msgspec
from cyclopts import Parameter

from wakeline.client import SessionClient
from wakeline.errors import BodyInvalidError, UnavailableError


def publish(
    session: str,
    data: str | None = None,
    *,
    topic: str = "message",
    url: Annotated[str, Parameter(env_var="WAKELINE_URL")] = "http://127.0.0.1:7777",
) -> None:
    """Append an event to a session; print where it stands when it is durable.

    Without DATA, each line of standard input is one event.

    Examples:
        wakeline publish order-1 '{"state": "packed"}' --topic status
        journalctl -f | wakeline publish logs

    Args:
        session: The session's name; it begins with its first event.
        data: JSON; what is not JSON is published as a string.
        topic: The topic to publish under.
        url: The gateway.
    """
    lines: Iterable[str] = sys.stdin if data is None else [data]
    asyncio.run(_publish(session, lines, topic, url))


async def _publish(session: str, lines: Iterable[str], topic: str, url: str) -> None:
    async with SessionClient(url) as client:
        for line in lines:
            event = {"topic": topic, "data": _value(line.rstrip("\n"))}
            try:
                answer = await client.publish(session, [event])
            except aiohttp.ClientError as error:
                raise UnavailableError(f"the gateway at {url} cannot be reached: {error}") from error
            print(msgspec.json.encode(answer).decode(), flush=True)


def _value(text: str) -> Any:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BodyInvalidError("expected UTF-8") from None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
