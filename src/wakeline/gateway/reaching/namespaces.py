"""All namespaces of Temporal that one gateway follows workflows in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from wakeline.gateway.reaching.connection import Connection, Options, badness


class Namespaces:
    """A connection for each namespace, in the order of the settings.

    Args:
        options: How to reach each; at least one.
        count: Called with the name and the outcome of every call that is made.
    """

    def __init__(
        self, options: Sequence[Options], count: Callable[[str, str], None] = lambda call, outcome: None
    ) -> None:
        self._connections = {each.namespace: Connection(each, count) for each in options}

    @property
    def main(self) -> Connection:
        """The first: the one that is meant where none is named."""
        return next(iter(self._connections.values()))

    def __getitem__(self, namespace: str) -> Connection:
        """The connection to a namespace; `KeyError` if the settings have none of this name."""
        return self._connections[namespace]

    def __contains__(self, namespace: str) -> bool:
        """Whether the settings have a namespace of this name."""
        return namespace in self._connections

    def __iter__(self) -> Iterator[Connection]:
        """Each connection, in the order of the settings."""
        return iter(self._connections.values())

    def __len__(self) -> int:
        """How many there are."""
        return len(self._connections)

    async def start(self) -> None:
        """Try to reach each, together; then go on trying in the background."""
        await asyncio.gather(*(connection.start() for connection in self))

    async def stop(self) -> None:
        """Stop asking."""
        for connection in self:
            await connection.stop()

    def health(self) -> str:
        """The worst of all; `ok` if all of them are."""
        return max((connection.health for connection in self), key=badness)

    def healths(self) -> dict[str, str]:
        """How each is, by name."""
        return {connection.namespace: connection.health for connection in self}
