"""The files in `deploy/`: the proxies' samples serve, the others name what exists."""

from __future__ import annotations

import asyncio
import configparser
import json
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml  # type: ignore[import-untyped]

from tests.certificates import Authority
from tests.gateways import GatewayProcess
from tests.postgres import PostgresServer
from tests.support import Served, Stream
from wakeline.cli.processes import Process, free_port
from wakeline.gateway.settings import Settings, load, unknown_variables

DEPLOY = Path("deploy")
PORT = Settings().port


def program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    assert found is not None, f"expected {name}: scripts/need {name}"
    return found


@pytest.fixture
async def pair(postgres: PostgresServer, tmp_path: Path, forks: None) -> AsyncIterator[list[GatewayProcess]]:
    """Two gateways that trust the proxy."""
    environment = {
        "WAKELINE_ENGINE": await postgres.database(),
        "WAKELINE_TRUSTED_PROXIES": "127.0.0.1",
        "WAKELINE_LEAVE_WITHIN": "0.5",
    }
    gateways = [GatewayProcess(tmp_path / name, environment=environment) for name in ("a", "b")]
    await asyncio.gather(*(gateway.start() for gateway in gateways))
    yield gateways
    for gateway in gateways:
        await gateway.stop()


def placed(sample: str, gateways: list[GatewayProcess], changes: Mapping[str, str]) -> str:
    """A sample for this machine; everything that is changed must be in it."""
    ports = {f"gateway-{number}:{PORT}": f"127.0.0.1:{gateway.port}" for number, gateway in enumerate(gateways, 1)}
    for before, after in {**ports, **changes}.items():
        assert before in sample, before
        sample = sample.replace(before, after)
    return sample


@asynccontextmanager
async def nginx(gateways: list[GatewayProcess], root: Path) -> AsyncIterator[Served]:
    port = free_port()
    certificate, key = Authority(root).issue("wakeline.example")
    files = {"/etc/nginx/tls/tls.crt": certificate, "/etc/nginx/tls/tls.key": key}
    sample = placed((DEPLOY / "nginx.conf").read_text(), gateways, {"listen 443": f"listen 127.0.0.1:{port}", **files})
    temporary = "".join(f"{kind}_temp_path {root}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    (root / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {root}/pid; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {root}/body; {temporary}\n{sample}}}"
    )
    async with served([program("nginx"), "-p", str(root), "-c", str(root / "nginx.conf"), "-e", "stderr"], port) as one:
        yield one


@asynccontextmanager
async def caddy(gateways: list[GatewayProcess], root: Path) -> AsyncIterator[Served]:
    port = free_port()
    sample = placed(
        (DEPLOY / "Caddyfile").read_text(), gateways, {"wakeline.example {": f"https://127.0.0.1:{port} {{"}
    )
    options = f"{{\n\tadmin off\n\tlocal_certs\n\tskip_install_trust\n\thttp_port {free_port()}\n}}\n"
    (root / "Caddyfile").write_text(options + sample)
    # Its own certificates belong into a folder of the test.
    environment = {**os.environ, "HOME": str(root), "XDG_DATA_HOME": str(root), "XDG_CONFIG_HOME": str(root)}
    arguments = [program("caddy"), "run", "--adapter", "caddyfile", "--config", str(root / "Caddyfile")]
    async with served(arguments, port, environment) as one:
        yield one


@asynccontextmanager
async def served(
    arguments: list[str], port: int, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Served]:
    """A proxy that runs, and HTTPS to it; the certificate is not what is tested."""
    anything = ssl.create_default_context()
    anything.check_hostname, anything.verify_mode = False, ssl.CERT_NONE
    process = Process(arguments, environment=environment)
    await process.start()
    try:
        async with Served(f"https://127.0.0.1:{port}", anything) as one:
            async with asyncio.timeout(60):
                while True:
                    try:
                        if (await one.call("GET", "/readyz"))[0] == 200:
                            break
                    except aiohttp.ClientError:
                        assert process.running, f"{arguments[0]} has ended"
                    await asyncio.sleep(0.05)
            yield one
    finally:
        await process.stop()


async def read(one: Served, start: str, count: int) -> tuple[list[Any], str]:
    """Data of so many events, through streams that may end in between; and the cursor after them."""
    got: list[Any] = []
    while len(got) < count:
        try:
            stream: Stream = await one.stream("s", f"from={start}")
            while len(got) < count and (lines := await stream.lines()):
                fields = dict(line.split(b": ", 1) for line in lines if not line.startswith(b":"))
                start = fields.get(b"id", start.encode()).decode()
                if b"data" in fields:
                    got.append(json.loads(fields[b"data"])["data"])
        except aiohttp.ClientError:
            await asyncio.sleep(0.05)
    return got, start


@pytest.mark.parametrize("proxy", [nginx, caddy], ids=["nginx", "caddy"])
async def test_the_sample_of_a_proxy_serves_two_gateways_of_which_one_restarts(
    proxy: Any, pair: list[GatewayProcess], tmp_path: Path
) -> None:
    root = tmp_path / "proxy"
    root.mkdir()
    async with proxy(pair, root) as one, asyncio.timeout(120):
        await one.publish("s", {"topic": "t", "data": 0})
        async with one.http.ws_connect("/v1/feed") as socket:
            await socket.send_json({"type": "subscribe", "session": "s"})
            kinds = [json.loads((await socket.receive()).data)["type"] for _ in range(3)]
            assert kinds == ["ready", "subscribed", "events"]
        devices = [asyncio.ensure_future(read(one, "beginning", 20)) for _ in range(4)]
        for number in range(1, 20):
            headers = {"publisher": "p", "sequence": str(number - 1)}
            if number == 5:
                assert await pair[0].stop() == 0
            if number == 12:
                await pair[0].start()
            async with asyncio.timeout(60):
                while True:
                    try:
                        await one.publish("s", {"topic": "t", "data": number}, **headers)
                        break
                    except (AssertionError, aiohttp.ClientError):  # a 502 while the proxy learns of the stop
                        await asyncio.sleep(0.1)
        for got, _ in await asyncio.gather(*devices):
            assert got == list(range(20))
        # The gateway knows the page's own origin, which is the proxy's.
        status, _ = await one.call("GET", "/v1/sessions/s", headers={"Origin": one.url})
        assert status == 200


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def environments() -> dict[str, dict[str, str]]:
    """The variables of Wakeline that each file sets."""
    found: dict[str, dict[str, str]] = {}
    for name in ("compose.sqlite.yaml", "compose.postgres.yaml"):
        for service, of in documents(name)[0]["services"].items():
            if "build" in of:
                found[f"{name}: {service}"] = of["environment"]
    (container,) = documents("kubernetes.yaml")[0]["spec"]["template"]["spec"]["containers"]
    found["kubernetes.yaml"] = {each["name"]: each.get("value", "x" * 32) for each in container["env"]}
    lines = re.findall(r"WAKELINE_\w+=\S+", (DEPLOY / "Dockerfile").read_text())
    found["Dockerfile"] = dict(line.split("=", 1) for line in lines)
    lines = re.findall(r"^Environment=(\S+)$", (DEPLOY / "wakeline.service").read_text(), re.MULTILINE)
    found["wakeline.service"] = dict(line.split("=", 1) for line in lines)
    return found


@pytest.mark.parametrize("file", environments())
def test_the_files_name_settings_that_exist(file: str) -> None:
    given = environments()[file]
    assert any(name.startswith("WAKELINE_") for name in given)
    assert list(unknown_variables(given)) == []
    load(environment={name: value for name, value in given.items() if name != "WAKELINE_CONFIG"})


def test_the_manifests_belong_together() -> None:
    deployment, service, budget = documents("kubernetes.yaml")
    assert [each["kind"] for each in (deployment, service, budget)] == ["Deployment", "Service", "PodDisruptionBudget"]
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"]
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        budget["spec"]["selector"]["matchLabels"],
    ):
        assert selector == labels
    assert budget["spec"]["minAvailable"] < deployment["spec"]["replicas"]
    (container,) = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": PORT}
    assert service["spec"]["ports"][0]["targetPort"] == "http"
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/healthz",
        "readiness": "/readyz",
        "liveness": "/healthz",
    }
    leaves = next(float(each["value"]) for each in container["env"] if each["name"] == "WAKELINE_LEAVE_WITHIN")
    assert pod["spec"]["terminationGracePeriodSeconds"] >= leaves + 15


def test_the_image_runs_the_command_without_root_on_the_port() -> None:
    lines = (DEPLOY / "Dockerfile").read_text()
    assert re.search(r"^USER 10001:10001$", lines, re.MULTILINE)
    assert re.search(rf"^EXPOSE {PORT}$", lines, re.MULTILINE)
    assert f"http://127.0.0.1:{PORT}/healthz" in lines
    for name in ("compose.sqlite.yaml", "compose.postgres.yaml"):
        for service in documents(name)[0]["services"].values():
            if "build" in service:
                assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    unit.read(DEPLOY / "wakeline.service")
    assert unit["Service"]["ExecStart"].endswith("/wakeline serve")
    if (analyze := shutil.which("systemd-analyze")) is None:
        return  # its keys are checked where systemd is
    there = (DEPLOY / "wakeline.service").read_text().replace("/opt/wakeline/bin/wakeline", "/bin/true")
    (tmp_path / "wakeline.service").write_text(there)
    checked = subprocess.run([analyze, "verify", tmp_path / "wakeline.service"], capture_output=True, text=True)
    assert not [line for line in checked.stderr.splitlines() if "wakeline.service" in line], checked.stderr
