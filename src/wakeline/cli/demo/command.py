"""`wakeline demo`: the command."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import Annotated, Any

import structlog
from cyclopts import Parameter
from temporalio.runtime import Runtime, TelemetryConfig

from wakeline.cli.demo.headless import run_headless
from wakeline.cli.demo.live import run_live


def demo(
    *,
    headless: Annotated[bool, Parameter(negative=())] = False,
    seconds: float = 20.0,
    port: int = 8377,
    open_page: Annotated[bool, Parameter(name="--open")] = True,
) -> None:
    """Run the demo: workflows publish, two devices watch, and a counter compares.

    Starts a Temporal dev server, a gateway on SQLite and a worker, all on loopback, and removes them at the end. The
    counter compares what the devices received with what was sent. An order waits until somebody approves its payment;
    the phone is notified of that while it is offline. Keys: k kills the gateway with SIGKILL and starts it again, o takes
    the phone offline for 10 s, t terminates a workflow, a approves the order's payment, q quits.
    With OPENAI_BASE_URL (and OPENAI_API_KEY, OPENAI_MODEL) set, the agent's text comes from that endpoint.

    Examples:
        wakeline demo
        wakeline demo --headless --seconds 20

    Args:
        headless: No page and no keys: servers are killed automatically, the last line is the counter, and the exit code
            is 0 only if every device received every event, once, in order, and the right end.
        seconds: Approximate length of the headless demo.
        port: Port of the page; 0 selects a free one.
        open_page: Open the page in a browser.
    """
    # The demo kills its own servers, which would fill the terminal with warnings.
    logging.basicConfig(level=logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=None)), error_if_already_set=False)
    if headless:
        sys.exit(0 if asyncio.run(_ended_by_signals(run_headless(seconds))) else 1)
    asyncio.run(_ended_by_signals(run_live(port=port, open_page=open_page)))


async def _ended_by_signals(work: Coroutine[Any, Any, Any]) -> Any:
    """Run `work`; SIGINT and SIGTERM cancel it, so that it cleans up."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        return await task
    return None
