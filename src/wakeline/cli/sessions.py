"""`wakeline sessions`: list sessions, show one, export, import, close, delete."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import quote

import msgspec
from cyclopts import Group, Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from wakeline.cli.as_json import as_json
from wakeline.cli.session_lines import description, heading, row
from wakeline.cli.session_list import Filter, RunStatus, State, state_of
from wakeline.client import Session, SessionClient, SessionState, TransferError
from wakeline.errors import RequestInvalidError

_OF_LIST: Final = Group.create_ordered("Only of list")
Action: TypeAlias = Literal["list", "show", "export", "import", "close", "delete"]
_REFUSED: Final = 1


class _Head(msgspec.Struct):
    """The numbers in the first line of an export."""

    first_offset: int
    next_offset: int


def sessions(
    action: Action,
    session: str | None = None,
    file: Path | None = None,
    /,
    *,
    match: Annotated[str | None, Parameter(group=_OF_LIST)] = None,
    state: Annotated[State | None, Parameter(group=_OF_LIST)] = None,
    last_run: Annotated[RunStatus | None, Parameter(name="--run", group=_OF_LIST)] = None,
    limit: Annotated[int | None, Parameter(group=_OF_LIST)] = None,
    after: Annotated[str | None, Parameter(group=_OF_LIST)] = None,
    yes: Annotated[bool, Parameter(name=("--yes", "-y"), negative=(), show_default=False)] = False,
    json: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    url: Annotated[str, Parameter(env_var="WAKELINE_URL")] = "http://127.0.0.1:7777",
    token: Annotated[str | None, Parameter(env_var="WAKELINE_TOKEN")] = None,
) -> None:
    """List sessions by name, show one, export it to a file, import it, close it, or delete it.

    For example:

        wakeline sessions list --match 'order-*' --run failed
        wakeline sessions list --json | jq -r .session
        wakeline sessions show order-1
        wakeline sessions export order-1 order-1.ndjson
        wakeline sessions import order-1-copy order-1.ndjson
        wakeline sessions close order-1
        wakeline sessions delete order-1

    A closed session accepts no more events, and readers come to its end. A deleted one is gone with all of its events,
    for every reader at once; a run that is still open begins it again with its next event. An import creates a session
    with the offsets of the file.

    Args:
        action: What to do.
        session: The session's name.
        file: The file of an export or import; an export is by default written to SESSION.ndjson.
        match: Names that match this pattern; * stands for any characters.
        state: Sessions that are running (a run is open), settled (all runs have ended), open (without a run) or
            closed.
        last_run: Sessions whose latest run has this status.
        limit: At most so many sessions; stderr then says with which --after the list continues.
        after: Names that sort after this one.
        yes: Do not ask before a session is deleted or a file is replaced.
        json: Print JSON: of list one object a line, of show one object.
        url: The gateway.
        token: The token; to list and show it must allow read, for everything else manage; to export also read, and to
            import also publish.
    """
    if action == "list" and session is None:
        asyncio.run(_list(url, token, Filter(match, state, last_run), limit, after or "", lines=json))
        return
    name = _name(action, session, file)
    path = _checked(action, file or Path(f"{quote(name, safe='')}.ndjson"), given=file is not None, yes=yes)
    asyncio.run(_do(url, token, action, name, path, yes=yes, json=json))


async def _do(url: str, token: str | None, action: Action, name: str, file: Path, *, yes: bool, json: bool) -> None:
    async with SessionClient(url, token) as client:
        session = client.session(name)
        match action:
            case "show":
                await _show(session, json=json)
            case "export":
                await _export(session, file)
            case "import":
                await _import(session, file)
            case "close":
                await session.close()
                print(f"closed {name}")
            case "delete":
                await _delete(session, yes=yes)


def _name(action: Action, session: str | None, file: Path | None) -> str:
    """Return the session's name, if the arguments belong together.

    Raises:
        RequestInvalidError: They do not.
    """
    if action == "list":
        message = f"expected no name after list, got {session!r}"
        raise RequestInvalidError(message, hint=f"Filter by name with --match '{session}*'.")
    if session is None:
        message = f"expected the name of a session to {action}, got none"
        taken = "`wakeline sessions list` prints the names."
        new = "Pass a name that no session has, and the file: `wakeline sessions import SESSION FILE`."
        raise RequestInvalidError(message, hint=new if action == "import" else taken)
    if file is not None and action not in ("export", "import"):
        raise RequestInvalidError(f"expected no file after {action} SESSION, got {file}")
    return session


def _checked(action: Action, file: Path, *, given: bool, yes: bool) -> Path:
    """Return the file if the action can use it; ask before one is replaced."""
    if action == "export" and file.exists() and not yes:
        _confirm(f"Replace the file {file}?", f"a new file, but {file} exists")
    if action == "import" and not (given and file.is_file()):
        raise RequestInvalidError(
            f"expected the file of an export, got {file if given else 'none'}",
            hint="Pass the path that `wakeline sessions export SESSION FILE` has written.",
        )
    return file


async def _list(url: str, token: str | None, wanted: Filter, limit: int | None, after: str, *, lines: bool) -> None:
    console = Console(highlight=False, soft_wrap=True)
    count, last = 0, after
    async with SessionClient(url, token) as client:
        async for found in wanted.of(client, after):
            if count == limit:
                print(f"there may be more: continue with --after '{last}'", file=sys.stderr)
                return
            if lines:
                print(as_json(found), flush=True)
            else:
                if count == 0:
                    console.print(heading())
                console.print(row(found))
            count, last = count + 1, found.session
    if count == 0 and not lines:
        print("no sessions", file=sys.stderr)


async def _show(session: Session, *, json: bool) -> None:
    state = await session.state()
    if json:
        print(as_json(state))
    else:
        Console(highlight=False, soft_wrap=True).print(description(state))


async def _export(session: Session, file: Path) -> None:
    state = await session.state()
    with _progress(f"exporting {session.name}", state.next_offset - state.first_offset) as on_progress:
        try:
            end = await session.export(file, on_progress=on_progress)
        except OSError as error:  # of the file, such as a full disk: those of the connection have an error of their own
            raise TransferError(f"the export could not be written: {error}") from None
    print(f"exported {session.name} to {file}: {_counted(end - state.first_offset)}")


async def _import(session: Session, file: Path) -> None:
    with _progress(f"importing {session.name}", _events_in(file)) as on_progress:
        state = await session.import_(file, on_progress=on_progress)
    print(f"imported {file} as {state.session}: {_events(state)}")


async def _delete(session: Session, *, yes: bool) -> None:
    if not yes:
        state = await session.state()
        again = " A run is open: its next event begins the session again." if state_of(state) == "running" else ""
        _confirm(
            f"Delete session {session.name} with {_events(state)}? This cannot be undone.{again}",
            "--yes, to delete a session",
        )
    await session.delete()
    print(f"deleted {session.name}")


def _confirm(question: str, expected: str) -> None:
    """Ask the person at the terminal; end the command unless they agree.

    Raises:
        RequestInvalidError: Standard input is no terminal.
    """
    if not sys.stdin.isatty():
        raise RequestInvalidError(f"expected {expected}, and there is no terminal to ask at", hint="Pass --yes.")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        print("nothing was changed", file=sys.stderr)
        sys.exit(_REFUSED)


@contextmanager
def _progress(what: str, events: int | None) -> Iterator[Callable[[int], None]]:
    """Show progress on stderr, if that is a terminal; yield the function that reports it."""
    console = Console(stderr=True)
    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=events)
        # The first line of the file and the last one are no events.
        yield lambda lines: progress.update(task, completed=min(lines - 1, events or lines))


def _events(state: SessionState) -> str:
    return _counted(state.next_offset - state.first_offset)


def _counted(count: int) -> str:
    return "1 event" if count == 1 else f"{count:,} events"


def _events_in(file: Path) -> int | None:
    """Return the number of events by an export's first line; None if it is unreadable."""
    with file.open("rb") as source:
        try:
            head = msgspec.json.decode(source.readline(), type=_Head)
        except msgspec.DecodeError:
            return None  # the gateway refuses the file, and says why
    return head.next_offset - head.first_offset
