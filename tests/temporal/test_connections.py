"""Connections to Temporal: how they are, and that everything asked of it is counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from temporalio.client import Client
from temporalio.service import RPCError

from wakeline.cli.processes import free_port
from wakeline.gateway.temporal.connection import Options
from wakeline.gateway.temporal.namespaces import Namespaces


def address_of(client: Client) -> str:
    return client.service_client.config.target_host


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.02)


async def test_several_namespaces_are_each_what_they_are(client: Client) -> None:
    address = address_of(client)
    counted: Counter[tuple[str, str]] = Counter()
    namespaces = Namespaces(
        [
            Options(address=address),
            Options(address=address, namespace="nosuch"),
            Options(address=f"127.0.0.1:{free_port()}", namespace="away"),
        ],
        lambda call, outcome: counted.update([(call, outcome)]),
    )
    await namespaces.start()
    try:
        assert namespaces.main.health == "ok"
        assert namespaces["nosuch"].health == "no such namespace: Namespace nosuch is not found."
        assert namespaces["away"].health.startswith("unreachable: ")
        assert namespaces.health() == namespaces["away"].health
        assert [connection.up() for connection in namespaces] == [True, False, False]
        assert counted["DescribeNamespace", "OK"] == 1
        assert counted["DescribeNamespace", "NOT_FOUND"] == 1
        assert counted["GetSystemInfo", "UNAVAILABLE"] == 1
        with pytest.raises(RPCError):
            await namespaces.main.client.get_workflow_handle("nosuch").describe()
        assert counted["DescribeWorkflowExecution", "NOT_FOUND"] == 1
        assert namespaces.main.health == "ok"
        with pytest.raises(KeyError):
            namespaces["other"]
    finally:
        await namespaces.stop()
