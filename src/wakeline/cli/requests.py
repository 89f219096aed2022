"""`wakeline requests`: list the open requests for input of a session, answer, decline."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from wakeline.cli.as_json import as_json
from wakeline.cli.failures import report_retry
from wakeline.cli.publish import as_value
from wakeline.client import Session, SessionClient
from wakeline.client.options import Answer
from wakeline.errors import AlreadyResolvedError, RequestInvalidError


def requests(
    action: Literal["list", "answer", "decline"],
    session: str,
    id: str | None = None,
    payload: str | None = None,
    /,
    *,
    device: str | None = None,
    digest: str | None = None,
    expect: int | None = None,
    url: Annotated[str, Parameter(env_var="WAKELINE_URL")] = "http://127.0.0.1:7777",
    token: Annotated[str | None, Parameter(env_var="WAKELINE_TOKEN")] = None,
) -> None:
    """List the open requests for input of a session, answer one, or decline to answer.

    For example:

        wakeline requests list order-1
        wakeline requests answer order-1 pay-1 approve
        wakeline requests answer order-1 address '{"city": "Oslo"}'
        wakeline requests decline order-1 pay-1

    Args:
        action: What to do.
        session: The session's name.
        id: The request's id.
        payload: The answer, as JSON; other text is a string (default: null).
        device: The device that it is sent from.
        digest: The digest of what was shown, if the request has one.
        expect: The offset of the last event that was seen.
        url: The gateway.
        token: The token; to list it must allow read, and else input with the name $answer.REASON.
    """
    if action == "list":
        if id is not None:
            raise RequestInvalidError("expected a session alone to list its requests, got an id as well")
        for request in _run(url, token, session, lambda it: it.requests()):
            _print(request)
        return
    if id is None:
        raise RequestInvalidError(f"expected the id of a request to {action}, got none")
    how: Answer = {"device": device, "digest": digest, "expect": expect, "on_lost": report_retry}
    if action == "decline":
        how["status"] = "cancelled"
    value = None if payload is None else as_value(payload)
    try:
        answered = _run(url, token, session, lambda it: it.answer(id, value, **how))
    except AlreadyResolvedError as error:
        if "outcome" in error.details:
            error.hint = f"The first answer counts: {msgspec.json.encode(error.details['outcome']).decode()}"
        raise
    _print(answered)
    if answered.run_closed:
        print(f"The run that asked {id} has ended: nothing may come of this answer.", file=sys.stderr, flush=True)


def _run(url: str, token: str | None, session: str, work: Callable[[Session], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        async with SessionClient(url, token) as client:
            return await work(client.session(session))

    return asyncio.run(run())


def _print(value: Any) -> None:
    print(as_json(value), flush=True)
