"""The block that closes a client, a stream or a view at its end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self


class Closing(ABC):
    """A context manager for `async with`, which closes its object at the end of the block."""

    @abstractmethod
    async def aclose(self) -> None:
        """Release its connections."""

    async def __aenter__(self) -> Self:
        """Return itself; connections are made when they are needed."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """See `aclose`."""
        await self.aclose()
