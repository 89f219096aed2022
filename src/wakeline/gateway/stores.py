"""Chooses the engine by its name in the settings: the only file that imports engines."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from wakeline.errors import EngineRefusedError, ProgramMissingError, SettingsInvalidError
from wakeline.gateway.log import Engine
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.log.engines.sqlite import SqliteEngine, check_stored, mark_restored
from wakeline.gateway.ownership import Share, survey
from wakeline.gateway.sessions import Move, Moved, carried, check_unused
from wakeline.gateway.settings import Settings

if TYPE_CHECKING:
    from wakeline.gateway.log.engines.nats import NatsEngine, StreamState
    from wakeline.gateway.log.engines.postgres import PostgresEngine

_NATS = ("nats://", "tls://")


def engine_of(settings: Settings) -> Engine:
    """Return the engine that the settings name; it is not open yet.

    Raises:
        EngineRefusedError: Its address cannot be read.
        ProgramMissingError: Its library is not installed.
    """
    match settings.engine:
        case "memory":
            return MemoryEngine()
        case "sqlite":
            return SqliteEngine(Path(settings.data), durability=settings.durability, erase_within=settings.erase_within)
    if settings.engine.startswith(_NATS):
        return _nats(settings)
    return _postgres(settings.engine)


def _nats(settings: Settings) -> NatsEngine:
    try:
        from wakeline.gateway.log.engines.nats import NatsEngine
    except ModuleNotFoundError as error:
        raise ProgramMissingError(
            f"expected nats-py for engine = nats://…, got: {error}",
            hint="Install nats-py, or Wakeline with its extra `nats`.",
        ) from None
    return NatsEngine(settings.engine, sync_unchecked=settings.nats_sync_unchecked)


def _postgres(address: str) -> PostgresEngine:
    try:
        from wakeline.gateway.log.engines.postgres import PostgresEngine
    except ModuleNotFoundError as error:
        raise ProgramMissingError(
            f"expected asyncpg for engine = postgres://…, got: {error}",
            hint="Install asyncpg, or Wakeline with its extra `postgres`.",
        ) from None
    return PostgresEngine(address)


async def renew(settings: Settings) -> int:
    """Give every session of the engine that the settings name a new epoch, after a restore.

    Returns:
        The number of sessions.

    Raises:
        SettingsInvalidError: They name another engine than PostgreSQL or NATS.
        StartupError: The store cannot be used, or a gateway uses it.
    """
    if settings.engine.startswith(_NATS):
        engine: NatsEngine | PostgresEngine = _nats(settings)
    elif settings.engine.startswith("postgres"):
        engine = _postgres(settings.engine)
    else:
        raise SettingsInvalidError(
            f"expected engine = postgres://… or nats://…, got {settings.engine.partition(':')[0]}",
            hint="Set WAKELINE_ENGINE. `wakeline restored` declares the restore of the files of the engine sqlite.",
        )
    await _check_there(settings)
    await engine.open()
    try:
        await check_unused(engine, settings.lease)
        return await engine.renew(carried)
    finally:
        await engine.close()


async def move(source: Settings, target: Settings, progress: Callable[[Moved], None]) -> Moved:
    """Copy everything of one engine to another one, and verify it.

    Args:
        source: The settings of the engine that is read.
        target: The settings of the engine that is written.
        progress: Called after each session.

    Raises:
        StartupError: One of them cannot be used, or a gateway uses it.
        WakelineError: One of them failed, or a copy differs.
    """
    async with AsyncExitStack() as stack:
        first, second = engine_of(source), engine_of(target)
        await _check_there(source)
        for engine in (first, second):
            await engine.open()
            stack.push_async_callback(engine.close)
            await check_unused(engine, source.lease)
        return await Move(first, second, progress).run()


async def shares(settings: Settings) -> list[Share]:
    """Return how the gateways have divided the shards of the engine that the settings name.

    Raises:
        SettingsInvalidError: Gateways do not share this engine.
        StartupError: It cannot be used.
    """
    engine = engine_of(settings)
    if not engine.shared:
        raise SettingsInvalidError(
            f"expected an engine that gateways share, got {settings.engine}", hint="Set WAKELINE_ENGINE."
        )
    await _check_there(settings)
    if settings.engine.startswith(_NATS):
        from wakeline.gateway.log.engines.nats import records_of

        async with records_of(settings.engine) as records:
            return await survey(records.listed, settings.lease / 2)
    await engine.open()
    try:
        return await survey(engine.records, settings.lease / 2)
    finally:
        await engine.close()


async def _check_there(settings: Settings) -> None:
    """Check that a store has this program's schema: opening it would make or migrate it.

    Raises:
        StartupError: It cannot be used, or the directory has no database.
    """
    if settings.engine == "sqlite":
        check_stored(Path(settings.data))
    elif settings.engine.startswith("postgres"):
        found, wanted = await _postgres(settings.engine).migrate(check=True)
        if found != wanted:
            raise EngineRefusedError(
                f"expected a store with schema {wanted}, it has {f'schema {found}' if found else 'no tables'}",
                hint="Correct the address, or run `wakeline admin migrate` first.",
            )


async def streams(settings: Settings) -> list[StreamState]:
    """Return the streams of the engine that the settings name; none, if it is not NATS.

    Raises:
        StartupError: It cannot be reached.
    """
    if not settings.engine.startswith(_NATS):
        return []
    _nats(settings)  # reports that its library is missing
    from wakeline.gateway.log.engines.nats import survey_streams

    return await survey_streams(settings.engine)


async def migrate(settings: Settings, *, check: bool) -> tuple[int, int]:
    """Bring the tables of the engine that the settings name to this program's schema.

    Args:
        settings: They name PostgreSQL.
        check: Change nothing.

    Returns:
        The version of the schema that was found, 0 without tables, and this program's.

    Raises:
        SettingsInvalidError: The engine has no tables that are migrated by a command.
        StartupError: The tables cannot be used.
    """
    if not settings.engine.startswith("postgres"):
        raise SettingsInvalidError(
            f"expected engine = postgres://…, got {settings.engine.partition(':')[0]}",
            hint="Set WAKELINE_ENGINE. The store of another engine is migrated when a gateway starts.",
        )
    return await _postgres(settings.engine).migrate(check=check)


def in_memory() -> Engine:
    """Return an engine for what may be lost when the process ends."""
    return MemoryEngine()


def declare_restored(directory: Path) -> None:
    """Have the next gateway on a data directory give every session a new epoch.

    Raises:
        StartupError: A gateway runs on it.
        StorageFailedError: There is no database, or it cannot be written.
    """
    mark_restored(directory)
