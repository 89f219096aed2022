"""`wakeline notifications`: list notifications, show one, and send one again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from wakeline.client.http import Http, session_path
from wakeline.errors import RequestInvalidError

_SILENCE: Final = timedelta(seconds=45)


class _Page(msgspec.Struct):
    notifications: list[dict[str, Any]]
    after: str | None


def notifications(
    action: Literal["list", "show", "retry"],
    session: str | None = None,
    id: str | None = None,
    /,
    *,
    state: Literal["pending", "delivered", "cancelled", "dead"] | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
    url: Annotated[str, Parameter(env_var="WAKELINE_URL")] = "http://127.0.0.1:7777",
    token: Annotated[str | None, Parameter(env_var="WAKELINE_TOKEN")] = None,
) -> None:
    """List notifications, show one with its events and attempts, or send one again now.

    For example:

        wakeline notifications list --state dead
        wakeline notifications show order-1 msg_5f1c…
        wakeline notifications retry order-1 msg_5f1c…

    Args:
        action: What to do.
        session: The session's name; for list, only this session.
        id: The notification's id, for show and retry.
        state: List only notifications in this state.
        json: Print one JSON object a line instead of a table.
        url: The gateway.
        token: A token that may manage the sessions.
    """
    if action == "list":
        asyncio.run(_list(url, token, session, state, lines=json))
        return
    if session is None or id is None:
        raise RequestInvalidError(
            f"expected a session and a notification's id after {action}",
            hint="`wakeline notifications list` prints both.",
        )
    asyncio.run(_one(url, token, session, id, retry=action == "retry"))


async def _list(url: str, token: str | None, session: str | None, state: str | None, *, lines: bool) -> None:
    table = Table("session", "id", "user", "channel", "state", "events", "attempts", "last", box=None)
    async for found in _all(url, token, session, state):
        if lines:
            print(msgspec.json.encode(found).decode(), flush=True)
            continue
        attempts = found["attempts"]
        numbers = [str(found["count"]), str(len(attempts)), attempts[-1]["outcome"] if attempts else ""]
        table.add_row(*(found[column] for column in ("session", "id", "user", "channel", "state")), *numbers)
    if not lines:
        Console(soft_wrap=True).print(table if table.row_count else "no notifications")


async def _all(url: str, token: str | None, session: str | None, state: str | None) -> AsyncIterator[dict[str, Any]]:
    http = Http(url, token, _SILENCE)
    query = {} if state is None else {"state": state}
    if session is not None:
        query["session"] = session
    after: str | None = ""
    try:
        while after is not None:
            page = await http.call("GET", "/v1/notifications", _Page, query={**query, "after": after})
            for found in page.notifications:
                yield found
            after = page.after
    finally:
        await http.aclose()


async def _one(url: str, token: str | None, session: str, name: str, *, retry: bool) -> None:
    http = Http(url, token, _SILENCE)
    path = session_path(session, "notifications", name, *(["retry"] if retry else []))
    try:
        found = await http.call("POST" if retry else "GET", path, dict[str, Any])
    finally:
        await http.aclose()
    print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
