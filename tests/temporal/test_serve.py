"""`wakeline serve` as a person starts it beside Temporal: by Temporal's own configuration, and before Temporal is there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from temporalio.client import Client

from tests.gateways import GatewayProcess
from tests.support import Served
from tests.temporal import follower_workflows as workflows
from tests.temporal.test_connections import address_of
from tests.temporal.test_follower import running_worker, start, to_the_end
from wakeline.cli.processes import TemporalServer, free_port

pytestmark = pytest.mark.usefixtures("forks")


@asynccontextmanager
async def serving(data: Path, *arguments: str, **environment: str) -> AsyncIterator[GatewayProcess]:
    gateway = GatewayProcess(data, *arguments, environment=environment)
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.05)


async def test_serve_follows_the_temporal_that_its_environment_names(client: Client, tmp_path: Path) -> None:
    profiles = tmp_path / "temporal.toml"
    profiles.write_text(f'[profile.mine]\naddress = "{address_of(client)}"\nnamespace = "default"\n')
    config = tmp_path / "wakeline.toml"
    config.write_text(f'temporal_profile = "mine"\ntemporal_config_file = "{profiles}"\n')
    table = f'{{"default": {{"profile": "mine", "config_file": "{profiles}"}}}}'
    environments: dict[str, Mapping[str, str]] = {
        # A variable that is not UTF-8 has nothing to do with it.
        "address": {"TEMPORAL_ADDRESS": address_of(client), "OTHER": "\udcff"},
        "profile": {"TEMPORAL_PROFILE": "mine", "TEMPORAL_CONFIG_FILE": str(profiles)},
        "settings": {"WAKELINE_TEMPORAL_PROFILE": "mine", "WAKELINE_TEMPORAL_CONFIG_FILE": str(profiles)},
        "file": {"WAKELINE_CONFIG": str(config)},
        "table": {"WAKELINE_NAMESPACES": table},
    }

    async def follows(name: str, environment: Mapping[str, str]) -> None:
        async with serving(tmp_path / name, **environment) as gateway, Served(gateway.url) as served:
            await start(client, f"serve-{name}", workflows.Talks.run, "completes", 0)
            events = await to_the_end(served, f"serve-{name}")
            assert [event["data"] for event in events if event["topic"] == "status"] == ["begun", "last words"]

    async with running_worker(client):
        await asyncio.gather(*(follows(name, environment) for name, environment in environments.items()))


async def test_serve_logs_at_once_that_temporal_is_away_and_when_it_is_back(tmp_path: Path) -> None:
    temporal = TemporalServer(port=free_port())
    async with serving(tmp_path / "data", "--temporal", temporal.address) as gateway:
        await until(lambda: "listening on" in gateway.log.read_text())
        away = gateway.log.read_text()
        assert away.count("Temporal is unavailable") == 1
        assert temporal.address in away.splitlines()[0]
        await temporal.start()
        try:
            await until(lambda: "Temporal answers" in gateway.log.read_text())
        finally:
            await temporal.stop()
        await until(lambda: gateway.log.read_text().count("Temporal is unavailable") == 2)
        assert gateway.log.read_text().count("Temporal answers") == 1


async def test_while_temporal_is_away_every_line_of_the_log_is_json(tmp_path: Path) -> None:
    """The SDK's core warns of each call that it retries: a debug line, which does not bury the gateway's own one."""
    temporal = TemporalServer()
    await temporal.start()
    try:
        client = await temporal.ready()
        settings = ("--temporal", temporal.address)
        async with (
            serving(tmp_path / "quiet", *settings) as quiet,
            serving(tmp_path / "debug", *settings, WAKELINE_LOG_LEVEL="debug") as debug,
            Served(quiet.url) as first,
            Served(debug.url) as second,
        ):
            await start(client, "talks", workflows.Talks.run, "completes", 0)
            streams = [await first.stream("talks"), await second.stream("talks")]
            await temporal.stop()
            await until(lambda: "retried 5 times" in debug.log.read_text())
            for stream in streams:
                stream.close()
        lines = [json.loads(line) for line in debug.log.read_text().splitlines()]
        (core,) = {(line["level"], line["target"]) for line in lines if "retried" in line["event"]}
        assert core == ("debug", "temporalio_client::retry")
        events = [json.loads(line)["event"] for line in quiet.log.read_text().splitlines()]
        assert [event for event in events if "retried" in event] == []
        assert len([event for event in events if event.startswith("Temporal is unavailable")]) == 1
    finally:
        await temporal.stop()
