"""`wakeline notifications`: list notifications, show one, send one again, and make keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from wakeline.cli.unused import check_unused
from wakeline.client.http import Http, session_path
from wakeline.errors import RequestInvalidError
from wakeline.events import parse_time
from wakeline.gateway.notifications import new_keys

_SILENCE: Final = timedelta(seconds=45)
_WIDEST: Final = 10_000
_FILTERS: Final = ("SESSION", "--state", "--channel", "--since", "--before")
_USED: Final = {
    "list": (*_FILTERS, "--json"),
    "show": ("SESSION", "ID"),
    "retry": _FILTERS,
    "retry with an ID": ("SESSION", "ID"),
    "keys": (),
}


class _Page(msgspec.Struct):
    notifications: list[dict[str, Any]]
    after: str | None


class _Retried(msgspec.Struct):
    retried: int
    after: str | None


def notifications(
    action: Literal["list", "show", "retry", "keys"],
    session: str | None = None,
    id: str | None = None,
    /,
    *,
    state: Literal["pending", "delivered", "cancelled", "dead"] | None = None,
    channel: str | None = None,
    since: str | None = None,
    before: str | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
    url: Annotated[str, Parameter(env_var="WAKELINE_URL")] = "http://127.0.0.1:7777",
    token: Annotated[str | None, Parameter(env_var="WAKELINE_TOKEN")] = None,
) -> None:
    """List notifications, show one, send some again now, or make keys for Web Push.

    For example:

        wakeline notifications list --state dead
        wakeline notifications show order-1 msg_5f1c…
        wakeline notifications retry order-1 msg_5f1c…
        wakeline notifications retry --channel ops --since 2026-11-29T06:00:00Z
        wakeline notifications keys

    Args:
        action: What to do.
        session: The session's name; for list and retry, only this session.
        id: The notification's id; without it, retry sends all that match.
        state: Only notifications in this state (default: all; for retry without an id, dead).
        channel: Only notifications of this channel.
        since: Only notifications that were created at this time or later.
        before: Only notifications that were created before this time.
        json: Print one JSON object a line instead of a table.
        url: The gateway.
        token: A token that may manage the sessions.
    """
    given = {"--state": state, "--channel": channel, "--since": since, "--before": before, "--json": json}
    how = "retry with an ID" if action == "retry" and id is not None else action
    check_unused(f"wakeline notifications {how}", {"SESSION": session, "ID": id, **given}, _USED[how])
    _check_time("--since", since)
    _check_time("--before", before)
    asked = {"session": session, "state": state, "channel": channel, "from": since, "to": before}
    query = {name: value for name, value in asked.items() if value is not None}
    if action == "keys":
        private, public = new_keys()
        print(f'private_key = "{private}"\n# The public key, which browsers get from GET /v1/push: {public}')
        return
    if action == "list":
        asyncio.run(_list(url, token, query, lines=json))
        return
    if action == "retry" and id is None:
        print(f"retried {asyncio.run(_retry(url, token, query)):,}")
        return
    if session is None or id is None:
        raise RequestInvalidError(
            f"expected a session and a notification's id after {action}",
            hint="`wakeline notifications list` prints both.",
        )
    asyncio.run(_one(url, token, session, id, retry=action == "retry"))


def _check_time(option: str, text: str | None) -> None:
    moment = None if text is None else parse_time(text)
    if text is not None and (moment is None or moment.tzinfo is None):
        raise RequestInvalidError(
            f"expected {option} to be a time such as 2026-11-29T06:00:00Z, got {text[:40]!r}",
            hint="Write the date, the time and the zone: Z is UTC.",
        )


async def _list(url: str, token: str | None, query: Mapping[str, str], *, lines: bool) -> None:
    table = Table("session", "id", "user", "channel", "state", "events", "attempts", "last", box=None)
    async for found in _all(url, token, query):
        if lines:
            print(msgspec.json.encode(found).decode(), flush=True)
            continue
        attempts = found["attempts"]
        numbers = [str(found["count"]), str(len(attempts)), attempts[-1]["outcome"] if attempts else ""]
        table.add_row(*(found[column] for column in ("session", "id", "user", "channel", "state")), *numbers)
    if not lines:
        # Never cut: show and retry need the ids. A narrow terminal wraps the lines.
        Console(width=_WIDEST, soft_wrap=True).print(table if table.row_count else "no notifications")


async def _all(url: str, token: str | None, query: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
    after: str | None = ""
    async with Http(url, token, _SILENCE) as http:
        while after is not None:
            page = await http.call("GET", "/v1/notifications", _Page, query={**query, "after": after})
            for found in page.notifications:
                yield found
            after = page.after


async def _retry(url: str, token: str | None, query: Mapping[str, str]) -> int:
    """Send all matching notifications again; return their number."""
    after: str | None = ""
    count = 0
    async with Http(url, token, _SILENCE) as http:
        while after is not None:
            page = await http.call("POST", "/v1/notifications/retry", _Retried, query={**query, "after": after})
            count, after = count + page.retried, page.after
    return count


async def _one(url: str, token: str | None, session: str, name: str, *, retry: bool) -> None:
    path = session_path(session, "notifications", name, *(["retry"] if retry else []))
    async with Http(url, token, _SILENCE) as http:
        found = await http.call("POST" if retry else "GET", path, dict[str, Any])
    print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
