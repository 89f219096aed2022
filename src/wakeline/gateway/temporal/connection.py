"""The gateway's connection to Temporal: made when it can be, remade by itself, and asked how it is."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

import structlog
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
from temporalio.client import Client
from temporalio.service import RPCError

_CHECK_SECONDS: Final = 2.0
_log = structlog.get_logger(__name__)


class Connection:
    """A Temporal client that need not be up.

    Args:
        address: `HOST:PORT`.
        namespace: The namespace whose workflows are followed.
    """

    def __init__(self, address: str, namespace: str) -> None:
        self.address = address
        self.namespace = namespace
        self.health = "unreachable: not tried yet"
        self._client: Client | None = None
        self._checking: asyncio.Task[None] | None = None
        self._up = asyncio.Event()

    @property
    def client(self) -> Client:
        """The client; its calls raise `RPCError` while Temporal is away, and work again when it is back."""
        assert self._client is not None, "expected a started connection"
        return self._client

    async def start(self) -> None:
        """Try to reach Temporal once, then go on trying in the background."""
        self._client = await Client.connect(self.address, namespace=self.namespace, lazy=True)
        await self._check()
        self._checking = asyncio.create_task(self._keep_checking())

    async def stop(self) -> None:
        """Stop asking."""
        if self._checking is not None:
            self._checking.cancel()

    async def until_up(self) -> None:
        """Return when Temporal answers."""
        await self._up.wait()

    def failed(self, error: RPCError) -> None:
        """Somebody's call failed for want of a server: say so now rather than at the next check."""
        self._note(f"unreachable: {error.message}")

    async def _keep_checking(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            await self._check()

    async def _check(self) -> None:
        try:
            await self.client.workflow_service.get_system_info(
                GetSystemInfoRequest(), timeout=timedelta(seconds=_CHECK_SECONDS)
            )
        except (RPCError, RuntimeError) as error:  # RuntimeError: the first connection of a lazy client failed
            self._note(f"unreachable: {error}")
        else:
            self._note("ok")

    def _note(self, health: str) -> None:
        if (health == "ok") != (self.health == "ok"):
            _log.info("temporal", address=self.address, health=health)
        self.health = health
        if health == "ok":
            self._up.set()
        else:
            self._up.clear()
