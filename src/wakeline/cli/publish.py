"""`wakeline publish`: append events to a session."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from wakeline.client import SessionClient
from wakeline.errors import BodyInvalidError
from wakeline.text import read_whole

# Turns of the event loop after which a closed connection is certainly noticed: the second one, with TLS some more.
_TURNS: Final = 5


def publish(
    session: str,
    data: str | None = None,
    /,
    *,
    topic: str = "message",
    url: Annotated[str, Parameter(env_var="WAKELINE_URL")] = "http://127.0.0.1:7777",
    token: Annotated[str | None, Parameter(env_var="WAKELINE_TOKEN")] = None,
) -> None:
    """Append an event to a session; print its position when it is durable.

    Without DATA, each line of standard input is one event.

    For example:

        wakeline publish order-1 '{"state": "packed"}' --topic status
        journalctl -f | wakeline publish logs

    Args:
        session: The session's name; it begins with its first event.
        data: JSON; other text is published as a string.
        topic: The event's topic.
        url: The gateway.
        token: The publisher's token.
    """
    if data is None and sys.stdin.isatty():
        print("publishing each line of standard input; Ctrl-D ends it", file=sys.stderr, flush=True)
    lines: Iterable[str] = sys.stdin if data is None else [data]
    count = asyncio.run(_publish(session, lines, topic, url, token))
    if count == 0:
        print("nothing was published: no DATA was given, and standard input was empty", file=sys.stderr)


async def _publish(name: str, lines: Iterable[str], topic: str, url: str, token: str | None) -> int:
    """Publish each line; return their number."""
    count = 0
    async with SessionClient(url, token) as client:
        session = client.session(name)
        for line in lines:
            await _catch_up()
            published = await session.publish(topic, as_value(line.rstrip("\n")))
            print(msgspec.json.encode(published).decode(), flush=True)
            count += 1
    return count


async def _catch_up() -> None:
    """Let the event loop notice a connection that was closed while a line was read.

    Reading standard input blocks the loop, so a request on such a connection would fail.
    """
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def as_value(text: str) -> Any:
    """Return what a text means as JSON; the text itself if it is not JSON.

    Raises:
        BodyInvalidError: It is not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BodyInvalidError("expected UTF-8 on standard input", hint="Convert the input to UTF-8 first.") from None
    try:
        return read_whole(msgspec.json.decode, text.encode())
    except msgspec.DecodeError:
        return text
