"""A session as a line of a list, and in full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from rich.text import Text

from wakeline.cli.lines import paused, retrying, shown, status_colour, waiting
from wakeline.cli.session_list import run_of, state_of
from wakeline.client import Retention, Run, SessionState

_COLOURS: Final = {"running": "green", "open": "green", "settled": "", "closed": "dim"}
_ROW: Final = "{:8} {:10} {:>11} {:>7}  {:16}  "


def heading() -> Text:
    """Return the names of the columns of `row`."""
    return Text(_ROW.format("STATE", "LAST RUN", "EVENTS", "DEVICES", "CREATED (UTC)") + "SESSION", "bold")


def row(session: SessionState) -> Text:
    """Return a session as a line, its name last, because names have any length."""
    state, status = state_of(session), run_of(session)
    events = f"{session.next_offset - session.first_offset:,}"
    return Text.assemble(
        (f"{state:8} ", _COLOURS[state]),
        (f"{status or '':10} ", "" if status is None else status_colour(status)),
        f"{events:>11} {session.devices:>7}  {session.created:%Y-%m-%d %H:%M}  ",
        (shown(session.session), "bold"),
    )


def description(session: SessionState) -> Text:
    """Return all that is known of a session, a line for each fact."""
    state = state_of(session)
    count = session.next_offset - session.first_offset
    events = f"{count:,}, offsets {session.first_offset} to {session.next_offset - 1}" if count else "none"
    facts: list[tuple[str, str | Text]] = [
        ("session", Text(shown(session.session), "bold")),
        ("state", Text(state, _COLOURS[state])),
        ("events", events),
        ("created", f"{session.created:%Y-%m-%d %H:%M:%S} UTC"),
        ("devices", f"{session.devices} live on this gateway"),
        ("epoch", session.epoch),
        ("cursor", session.cursor),
    ]
    if session.retention is not None and (kept := _retention(session.retention)):
        facts.append(("keeps", kept))
    for number, run in enumerate(session.runs):
        facts += [("" if number else "runs", line) for line in _run(run)]
    return Text("\n").join(Text.assemble((f"{name:9}", "dim"), said) for name, said in facts)


def _retention(limits: Retention) -> str:
    said = [f"{limits.age:g} s after its end"] if limits.age is not None else []
    said += [f"the last {limits.events:,} events"] if limits.events is not None else []
    said += [f"the last {limits.bytes:,} bytes"] if limits.bytes is not None else []
    return ", ".join(said) + (", and the compact form of the others" if limits.compact and said else "")


def _run(run: Run) -> Iterator[Text]:
    where = f" in namespace {shown(run.namespace)}" if run.namespace else ""
    drained = "" if run.drained else " (its last events could not be read)"
    said = f"  {shown(run.workflow_id)}{where}, run {shown(run.run)}{drained}"
    yield Text.assemble((run.status.replace("_", " "), status_colour(run.status)), said)
    if run.waiting:
        yield Text(f"  {shown(waiting(run.waiting))}", "yellow")
    for activity in run.activities:
        yield Text(f"  {shown(_activity(activity))}", "yellow")


def _activity(data: dict[str, Any]) -> str:
    """Return what is the matter with an activity."""
    match data.get("state"):
        case "retrying":
            return retrying(data)
        case "paused":
            return paused(data)
        case _:
            return f"{data.get('activity_type', data.get('activity'))} runs attempt {data.get('attempt')}"
