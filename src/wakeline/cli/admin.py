"""`wakeline admin`: migrate, move or survey a store, or declare its restore."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from msgspec.structs import replace
from rich.console import Console

from wakeline.cli.logs import configure
from wakeline.cli.unused import check_unused
from wakeline.errors import SettingsInvalidError
from wakeline.gateway.sessions import Moved
from wakeline.gateway.settings import Settings, load
from wakeline.gateway.stores import migrate, move, renew, shares, streams

_PENDING = 1
_USED = {
    "migrate": ("--check", "--engine"),
    "restored": ("--engine",),
    "move": ("--from", "--to"),
    "shards": ("--engine",),
}


def admin(
    action: Literal["migrate", "restored", "move", "shards"],
    /,
    *,
    check: Annotated[bool, Parameter(negative=())] = False,
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    to: str | None = None,
    engine: str | None = None,
    config: Path | None = None,
) -> None:
    """Migrate the tables of a store, declare its restore, move it, or show its shards.

    A gateway migrates the tables when it starts. Migrate them by this command if the role of the gateways may not change
    tables, or to do it before the first gateway is upgraded.

    After a restore of PostgreSQL or NATS to an earlier moment, run `restored` while no gateway runs: every session continues in a
    new epoch, and devices read it again from the beginning.

    `move` copies everything of a store to another one while no gateway runs, and compares every byte. If it is interrupted,
    run it again: it continues. Give passwords in PGPASSWORD, or by password_file in the address of NATS.

    `shards` lists the gateways that share the store, each with its host, port and process, and its shards of background
    work. It watches for half of the setting lease. On NATS it lists the streams before them: each holds a part of the
    sessions.

    For example:

        wakeline admin migrate --check
        PGUSER=owner wakeline admin migrate
        wakeline admin restored
        wakeline admin shards
        wakeline admin move --from sqlite:/var/lib/wakeline --to postgres://wakeline@db/wakeline

    Args:
        action: What to do.
        check: For migrate, change nothing; the exit code is 1 if a migration is pending.
        from_: For move, the store that is read: sqlite:DIRECTORY, postgres://USER@HOST/DATABASE or nats://HOST/NAME.
        to: For move, the store that is written.
        engine: For migrate, restored and shards, the store (default: WAKELINE_ENGINE).
        config: A TOML file with settings (default: WAKELINE_CONFIG, if set).
    """
    given = {"--check": check, "--from": from_, "--to": to, "--engine": engine}
    check_unused(f"wakeline admin {action}", given, _USED[action])
    unused = "WAKELINE_ENGINE" if action == "move" else ""  # move names both stores itself
    environment = {name: value for name, value in os.environ.items() if name != unused}
    settings = load({"engine": engine}, file=config, environment=environment)
    configure(settings.log_level)
    match action:
        case "migrate":
            _migrate(settings, check=check)
        case "restored":
            print(f"{asyncio.run(renew(settings)):,} sessions continue in a new epoch")
        case "move":
            _move(settings, from_, to)
        case "shards":
            _shards(settings)


def _migrate(settings: Settings, *, check: bool) -> None:
    found, wanted = asyncio.run(migrate(settings, check=check))
    if found == wanted:
        print(f"the store has schema {found}: nothing to do")
    elif check:
        print(f"the store has {_named(found)}, this program has schema {wanted}: a migration is pending")
        sys.exit(_PENDING)
    else:
        print(f"migrated the store from {_named(found)} to schema {wanted}")


def _move(settings: Settings, source: str | None, target: str | None) -> None:
    stores = [_store(settings, "--from", source), _store(settings, "--to", target)]
    notices = Console(stderr=True, highlight=False, soft_wrap=True)

    def progress(moved: Moved) -> None:
        if notices.is_terminal:
            notices.print(f"{moved.sessions:,} sessions", end="\r")

    moved = asyncio.run(move(stores[0], stores[1], progress))
    print(
        f"moved and verified {moved.sessions:,} sessions, {moved.events:,} events, {moved.publishers:,} publishers,"
        f" {moved.records:,} records"
    )


def _shards(settings: Settings) -> None:
    for stream in asyncio.run(streams(settings)):
        if stream.problem:
            print(f"{stream.name:24}  {stream.problem}")
        else:
            print(
                f"{stream.name:24}  leader {stream.leader}, {stream.current} of {stream.replicas} replicas current,"
                f" {stream.messages:,} messages, {stream.bytes:,} bytes"
            )
    found = asyncio.run(shares(settings))
    width = max(len(share.place) for share in found)
    for share in found:
        numbers = " ".join(map(str, share.shards)) or "none"
        print(f"{share.gateway or 'no gateway':16}  {share.state:8}  {share.place:{width}}  {numbers}")


def _store(settings: Settings, option: str, text: str | None) -> Settings:
    """Return the settings of a store that an option names; messages repeat no password."""
    kind, _, rest = (text or "").partition(":")
    if kind == "sqlite" and rest:
        return replace(settings, engine="sqlite", data=rest)
    if kind in ("postgres", "postgresql", "nats", "tls") and rest:
        return replace(settings, engine=f"{kind}:{rest}")
    raise SettingsInvalidError(
        f"expected sqlite:DIRECTORY, postgres://… or nats://… for {option}, got {kind or 'nothing'!r}",
        hint="Name both stores: --from sqlite:/var/lib/wakeline --to postgres://wakeline@db/wakeline",
    )


def _named(version: int) -> str:
    return f"schema {version}" if version else "no tables"
