"""`wakeline input`: send a signal or an update to a run, start the run, or end it."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from typing import Annotated, Final, Literal
from uuid import uuid4

import msgspec
from cyclopts import Parameter

from wakeline.cli.failures import report_retry
from wakeline.cli.publish import as_value
from wakeline.client import InputOutcome, SessionClient
from wakeline.client.options import Sending
from wakeline.errors import TokenMissingError, UnavailableError, WakelineError

_RETRY_SECONDS: Final = 30.0


def send(
    session: str,
    name: str | None = None,
    /,
    *args: str,
    kind: Literal["signal", "update", "cancel", "terminate", "start"] = "update",
    key: Annotated[str | None, Parameter(name="--id")] = None,
    run: str | None = None,
    start: str | None = None,
    device: str | None = None,
    expect: int | None = None,
    wait: float = 60.0,
    url: Annotated[str, Parameter(env_var="WAKELINE_URL")] = "http://127.0.0.1:7777",
    token: Annotated[str | None, Parameter(env_var="WAKELINE_TOKEN")] = None,
) -> None:
    """Send a signal or an update to a run of a session, start the run, or end it.

    The command prints the outcome.

    For example:

        wakeline input order-1 approve order-1
        wakeline input chat-1 say hello --kind signal
        wakeline input order-1 --kind cancel
        wakeline input chat-1 --kind start

    Args:
        session: The session's name.
        name: The signal's or update's name; of a start, the name of the gateway's rule, if the session has several.
        args: Its arguments, each as JSON; other text is a string.
        kind: What is sent: signal, update, cancel, terminate or start.
        key: The input's id: the command with the same one again is the same input (default: a new one).
        run: The run that it is for (default: the session's open run).
        start: The rule by which an update starts the workflow if no run is open.
        device: The device that it is sent from.
        expect: The offset of the last event that was seen; the input is refused if a later one counts.
        wait: Seconds to wait for the outcome; a gateway that cannot be reached is retried for up to 30 of them.
        url: The gateway.
        token: The token; it must allow the input.
    """
    values = [as_value(text) for text in args]
    chosen = key or str(uuid4())
    retry_timeout = timedelta(seconds=min(max(wait, 0.0), _RETRY_SECONDS))

    async def sent() -> InputOutcome:
        async with SessionClient(url, token, retry_timeout=retry_timeout) as client:
            how: Sending = {"kind": kind, "id": chosen, "run": run, "start": start, "device": device}
            how["expect"] = expect
            how["wait"] = timedelta(seconds=wait)
            how["on_lost"] = report_retry
            return await client.session(session).send(name or "", values, **how)

    try:
        outcome = asyncio.run(sent())
    except (UnavailableError, TokenMissingError) as error:
        error.hint = _hint(error, session, name if kind in ("signal", "update") else f"${kind}", chosen)
        raise
    _report(outcome, wait)
    if outcome.status != "completed":
        sys.exit(1)


def _report(outcome: InputOutcome, wait: float) -> None:
    """Print an outcome; on stderr how to ask again for one that is not there in time."""
    print(msgspec.json.encode(outcome).decode(), flush=True)
    if outcome.status == "accepted":
        message = (
            f"There is no outcome after {wait:g} s; the gateway keeps the input and sends it once. It may wait for Temporal, "
            f"a worker or a handler. Repeat the command with --id {outcome.id} to wait for its outcome."
        )
        print(message, file=sys.stderr, flush=True)


def _hint(error: WakelineError, session: str, needed: str | None, key: str) -> str:
    """Return the hint of an error as it is for the command."""
    if isinstance(error, UnavailableError):
        return (
            f"{error.hint} The gateway may have the input: repeat the command with --id {key}, so that it is sent once."
        )
    make = f"wakeline token --user NAME --session '{session}' --allow input --input '{needed or 'NAME'}'"
    return f"Pass --token, or set WAKELINE_TOKEN; `{make}` prints one."
