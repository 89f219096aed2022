"""NATS with TLS: every connection is encrypted, and a server that cannot prove who it is gets no password."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.gateways import GatewayProcess
from tests.nats import NatsStore, nats_server
from tests.support import Served
from wakeline.errors import EngineRefusedError
from wakeline.gateway.log.engines.nats import NatsEngine

pytestmark = pytest.mark.usefixtures("forks")
PASSWORD = "the-password"
LOGIN = f"the-user:{PASSWORD}@"
GUARD = f'authorization {{ users: [{{ user: "the-user", password: "{PASSWORD}" }}] }}'


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def encrypted(authority: Authority) -> Iterator[NatsStore]:
    """A server that requires TLS, as localhost, and a password."""
    certificate, key = authority.issue("localhost")
    with nats_server(GUARD, f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}') as store:
        yield store


def place_of(store: NatsStore, file: str, scheme: str = "tls") -> str:
    """The address of its store, with TLS alone."""
    server = store.servers[0]
    address = store.address("a", login=LOGIN, tls_ca=file)
    return address.replace(server.place, f"localhost:{server.port}", 1).replace("nats://", f"{scheme}://")


async def refused(address: str) -> str:
    with pytest.raises(EngineRefusedError) as error:
        await NatsEngine(address).open()
    assert PASSWORD not in f"{error.value} {error.value.hint}"
    return error.value.message


def connections(store: NatsStore) -> list[Any]:
    """The connections of the server, as it describes them."""
    found: list[Any] = store.servers[0].variables("connz")["connections"]
    return found


@pytest.mark.parametrize("scheme", ["tls", "nats"])
async def test_a_gateway_connects_with_tls_again_and_again_and_its_log_has_no_password(
    encrypted: NatsStore, authority: Authority, tmp_path: Path, scheme: str
) -> None:
    engine = {"WAKELINE_ENGINE": place_of(encrypted, authority.file, scheme), "WAKELINE_LOG_LEVEL": "debug"}
    gateway = GatewayProcess(tmp_path / "a", environment={**engine, "WAKELINE_LEAVE_WITHIN": "0"})
    await gateway.start()
    try:
        async with Served(gateway.url) as served:
            await served.publish("s", {"topic": "t"})
            assert [one["tls_version"] for one in connections(encrypted)] == ["1.3"]
            await asyncio.to_thread(encrypted.servers[0].stop)
            await asyncio.to_thread(encrypted.servers[0].start)
            async with asyncio.timeout(60):
                while (await served.call("POST", "/v1/sessions/s/events", json={"events": [{"topic": "t"}]}))[0] != 200:
                    await asyncio.sleep(0.05)
            assert [one["tls_version"] for one in connections(encrypted)] == ["1.3"]
        assert await gateway.stop() == 0
    finally:
        await gateway.kill()
    assert PASSWORD not in gateway.log.read_text()


async def test_a_server_that_cannot_prove_who_it_is_gets_no_password(
    encrypted: NatsStore, authority: Authority, tmp_path: Path
) -> None:
    another = Authority(tmp_path, "another")
    right = place_of(encrypted, authority.file)
    assert "a certificate that can be verified" in await refused(place_of(encrypted, another.file))
    assert "certificate verify failed" in await refused(right.replace("@localhost", "@127.0.0.1"))
    assert (await refused(place_of(encrypted, "/nowhere.pem"))).startswith("expected a file with certificates")
    with nats_server(GUARD) as plain:
        assert "offers no TLS" in await refused(place_of(plain, authority.file))
