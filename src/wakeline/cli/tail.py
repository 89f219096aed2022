"""`wakeline tail`: watch a session."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from wakeline.client import Received, SessionClient
from wakeline.events import RUN_CLOSED, Envelope

_EXIT_CODES = {"completed": 0, "failed": 3, "canceled": 4, "terminated": 5, "timed_out": 6}


def tail(
    session: str,
    *,
    url: Annotated[str, Parameter(env_var="WAKELINE_URL")] = "http://127.0.0.1:7777",
    from_: Annotated[str, Parameter(name="--from")] = "beginning",
    topics: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())] = (),
    until: Literal["settled", "never"] = "settled",
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Print a session's events as they come, through any disconnect, to its end.

    The exit code tells how the last run ended: 0 completed, 3 failed, 4 canceled, 5 terminated, 6 timed out.

    Examples:
        wakeline tail order-1
        wakeline tail order-1 --json --from now --until never

    Args:
        session: The session's name: a Workflow Id, unless its publisher chose another.
        url: The gateway.
        from_: beginning, now, or a cursor.
        topics: Only these topics.
        until: settled: stop when no run of the session is open. never: go on.
        json: Print each event's JSON object, one a line.
    """
    status = asyncio.run(_tail(session, url, from_, topics, until, json=json))
    sys.exit(_EXIT_CODES.get(status or "completed", 0))


async def _tail(
    session: str, url: str, from_: str, topics: tuple[str, ...], until: Literal["settled", "never"], *, json: bool
) -> str | None:
    console = Console(highlight=False, soft_wrap=True)
    status: str | None = None
    # The end is wanted for the exit code, whatever topics are shown.
    asked = (*topics, RUN_CLOSED) if topics else None
    async with SessionClient(url) as client:
        async for received in client.events(session, from_=from_, topics=asked, until=until):
            event = received.event
            if event.topic == RUN_CLOSED:
                status = event.data["status"]
            if topics and event.topic not in topics:
                continue
            if json:
                print(received.raw.decode(), flush=True)
            else:
                console.print(_line(received, event))
    return status


def _line(received: Received, event: Envelope) -> Text:
    value = event.payload if event.payload is not None else event.data
    return Text.assemble(
        (f"{event.offset:>6} ", "dim"),
        (f"{event.time[11:23]} ", "dim"),
        (f"{event.topic} ", "bold magenta" if event.topic.startswith("$") else "bold cyan"),
        msgspec.json.encode(value).decode(),
    )
