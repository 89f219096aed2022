"""`wakeline tail`: watch a session."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from wakeline.cli.failures import message_of, print_error
from wakeline.cli.lines import Lines
from wakeline.cli.screen import Screen
from wakeline.client import EventAdded, Session, SessionClient, SessionEvent
from wakeline.client.options import Reading
from wakeline.errors import CursorInvalidError, SessionNotFoundError, WakelineError
from wakeline.events import GAP, RUN_CLOSED, RUN_DRAINED, Cursor, check_beginning, check_topic

_EXIT_CODES: Final = {"completed": 0, "failed": 3, "canceled": 4, "terminated": 5, "timed_out": 6, "unknown": 7}
_REFUSED: Final = 1
_BEGINNINGS: Final = ("beginning", "now", "device")
_MOMENT: Final = 1.0
"""Seconds without an event after which `tail` explains the silence."""
_KEPT_EVENTS: Final = 1000
_INCOMPLETE: Final = (
    "the last events of the run could not be read, because no worker answered: start a worker, and they are added; "
    "leave workers running after a result, or give them WakelinePlugin, which delays their stop until that is done"
)


def tail(
    session: str,
    /,
    *,
    url: Annotated[str, Parameter(env_var="WAKELINE_URL")] = "http://127.0.0.1:7777",
    token: Annotated[str | None, Parameter(env_var="WAKELINE_TOKEN")] = None,
    from_: Annotated[str, Parameter(name="--from")] = "beginning",
    topics: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=(), show_default=False)] = (),
    until: Literal["settled", "never"] = "settled",
    wait_for_start: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    device: str | None = None,
    raw: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    json: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
) -> None:
    """Print a session as it changes, through any disconnect, to its end.

    A message that grows has one line, which grows in place on a terminal; it is printed whole when it is complete, or when
    its run ends. Superseded output is crossed out. --raw and --json print every event as it was published.

    The exit code is the status of the last run: 0 completed (or there was none), 3 failed, 4 canceled, 5 terminated,
    6 timed out, 7 unknown. 1 is a refusal, reported on stderr, and 130 is Ctrl-C. A gateway that cannot be reached is
    retried for ever; stderr reports when the connection is lost and when it is back.

    For example:

        wakeline tail order-1
        wakeline tail order-1 --topics status "step.*"
        wakeline tail order-1 --from tail:20 --until never
        wakeline tail order-1 --raw
        wakeline tail order-1 --from time:2026-11-21T05:00:00Z --json | jq .data
        wakeline tail order-1 --device laptop --from device
        wakeline tail order-1 > log && wakeline publish done "order-1 is done"

    Args:
        session: The session's name: a Workflow Id, unless its publisher chose another.
        url: The gateway.
        token: The reader's token.
        from_: beginning, now, a cursor, tail:N (the last N), time:T (RFC 3339), or device (after what --device has
            acknowledged).
        topics: Only these topics; step.* stands for all that begin with step.
        until: settled: stop when no run of the session is open. never: continue.
        wait_for_start: Wait for a workflow that has not been started yet.
        device: This device's id; the gateway keeps its positions.
        raw: Print every event on a line, also those of messages that grow and those that were superseded.
        json: As --raw, but print each event's JSON object, unchanged.
    """
    try:
        if not (from_ in _BEGINNINGS or from_.startswith(("tail:", "time:")) or Cursor.is_one(from_)):
            raise CursorInvalidError.of_beginning(from_)  # here, because a gateway asks for the token first
        watch = _Watch(
            [check_topic(check_beginning(topic, "--topics"), own=True) for topic in topics], raw=raw, json=json
        )
        reading = Reading(from_=from_, until=until, wait_for_start=wait_for_start, device=device)
        status = asyncio.run(_tail(watch, session, url, token, reading))
    except WakelineError as error:
        if isinstance(error, SessionNotFoundError) and not wait_for_start:
            error.hint += " Here, add --wait-for-start."
        print_error(error)
        sys.exit(_REFUSED)
    sys.exit(_EXIT_CODES.get(status or "completed", _EXIT_CODES["unknown"]))


async def _tail(watch: _Watch, session: str, url: str, token: str | None, reading: Reading) -> str | None:
    async with SessionClient(url, token) as client:
        return await watch.run(client.session(session), reading)


class _Watch:
    """Prints what is wanted of a session, and records how the last run ended.

    Args:
        topics: The topics to print; empty for all.
        raw: Print every event.
        json: Print every event as JSON instead of lines for people.
    """

    def __init__(self, topics: Sequence[str], *, raw: bool, json: bool) -> None:
        self._topics = topics
        self._raw = raw or json
        self._json = json
        self._console = Console(highlight=False, soft_wrap=True)
        self._notices = Console(stderr=True, highlight=False, soft_wrap=True, style="yellow")
        self._screen: Screen | None = None
        self._status: str | None = None
        self._incomplete: dict[str | None, bool] = {}

    async def run(self, session: Session, reading: Reading) -> str | None:
        """Watch to the end; return the status of the last run, if one has ended."""
        # The exit code and the runs' durations need the events of runs, whatever topics are shown.
        topics = (*self._topics, "$run.*") if self._topics else None
        how: Reading = {**reading, "topics": topics, "on_lost": self._lost, "on_resumed": self._resumed}
        explaining = asyncio.create_task(self._explain_silence(session, reading))
        try:
            await (self._print_events(session, how) if self._raw else self._print_changes(session, how))
        except BrokenPipeError:
            self._console.on_broken_pipe()
        finally:
            explaining.cancel()
        if any(self._incomplete.values()):
            self._report(_INCOMPLETE)
        return self._status

    async def _explain_silence(self, session: Session, reading: Reading) -> None:
        """Explain on stderr that the session has not started, or that it will not end by itself."""
        await asyncio.sleep(_MOMENT)
        try:
            state = await session.state()
        except WakelineError:
            return  # the reading reports it
        if state.next_offset == 0:
            self._report(f"waiting for session {session.name} to start")
        elif not state.runs and not state.closed and reading.get("until") == "settled":
            self._report(f"session {session.name} has no run, so it does not end by itself: Ctrl-C stops")

    async def _print_events(self, session: Session, how: Reading) -> None:
        lines = Lines(self._console.width if self._console.is_terminal else None)
        async with session.events(**how) as events:
            async for event in events:
                self._note_end(event)
                line = event.raw if self._json else lines.line(event)
                if not self._wanted(event.topic):
                    continue
                if isinstance(line, bytes):
                    sys.stdout.buffer.write(line + b"\n")
                    sys.stdout.flush()
                else:
                    self._console.print(line)

    async def _print_changes(self, session: Session, how: Reading) -> None:
        async with session.view(**how) as view:
            screen = self._screen = Screen(self._console, view.keyed, self._wanted)
            drawing = asyncio.create_task(screen.draw())
            try:
                async for change in view:
                    if isinstance(change, EventAdded):
                        self._note_end(change.event)
                    screen.show(change)
                    # Printed events are needed only to count those that are superseded soon after.
                    if len(view.events) > 2 * _KEPT_EVENTS:
                        del view.events[:-_KEPT_EVENTS]
            finally:
                drawing.cancel()
                screen.end()

    def _note_end(self, event: SessionEvent[Any]) -> None:
        if event.topic == RUN_CLOSED:
            self._status = str(event.data["status"])
            self._incomplete[event.run] = self._status != "unknown" and not event.data.get("drained", True)
        elif event.topic == RUN_DRAINED:
            self._incomplete.pop(event.run, None)

    def _wanted(self, topic: str) -> bool:
        return (
            not self._topics
            or topic == GAP
            or any(topic.startswith(t[:-1]) if t.endswith("*") else topic == t for t in self._topics)
        )

    def _report(self, text: str) -> None:
        # On a terminal that shows both outputs, text of stderr would be written into a growing line.
        if self._screen is not None and self._console.is_terminal and self._notices.is_terminal:
            self._screen.report(Text(text, "yellow"))
        else:
            self._notices.print(text)

    def _lost(self, error: WakelineError) -> None:
        self._report(f"{message_of(error)}; retrying")

    def _resumed(self) -> None:
        self._report("connected again; continuing after the last event")
