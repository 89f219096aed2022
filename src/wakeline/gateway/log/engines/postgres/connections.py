"""Checks that the server lets a gateway have as many connections as it uses."""

from __future__ import annotations

from typing import Final

import asyncpg

from wakeline.errors import EngineRefusedError
from wakeline.gateway.log.engines.postgres.target import CONNECTIONS, Connection, Target

_LEAST_LIMIT: Final = """
    SELECT min(most) FROM (
        SELECT rolconnlimit AS most FROM pg_roles WHERE rolname = session_user
        UNION ALL SELECT datconnlimit FROM pg_database WHERE datname = current_database()
        UNION ALL SELECT current_setting('max_connections')::integer
    ) AS limits WHERE most >= 0
"""


async def check_connections(target: Target, connection: Connection) -> None:
    """Check that a limit of the server is not below the number of a gateway's connections.

    A limit does not hold for a superuser, nor for the clients of a pooler: if it is too low, the connections are tried.

    Args:
        target: The database.
        connection: The one that is open already.

    Raises:
        EngineRefusedError: A gateway cannot have enough connections.
    """
    if (await connection.fetchval(_LEAST_LIMIT)) >= CONNECTIONS:
        return
    more: list[Connection] = []
    try:
        while len(more) < CONNECTIONS - 1:
            more.append(await target.connect())
    except asyncpg.TooManyConnectionsError as error:
        raise EngineRefusedError(
            f"{target.name}: expected {CONNECTIONS} connections for each gateway, got {len(more) + 1}: {error}",
            hint="Raise the limit of the role (ALTER ROLE … CONNECTION LIMIT), of the database, or max_connections.",
        ) from None
    finally:
        for one in more:
            one.terminate()
