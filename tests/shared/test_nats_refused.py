"""NATS servers that do not fit are refused, each with what to do; and every way to log in."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.nats import NatsStore, connection_to, nats_server
from tests.nats_keys import Key, operated
from tests.support import data_of, everything, publish
from wakeline.errors import EngineRefusedError, StorageFailedError
from wakeline.gateway.log.engines.nats import NatsEngine, link, streams, target


async def opens(address: str, **how: Any) -> None:
    engine = NatsEngine(address, **how)
    await engine.open()
    await engine.close()


async def refused(address: str, **how: Any) -> EngineRefusedError:
    with pytest.raises(EngineRefusedError) as error:
        await NatsEngine(address, **how).open()
    for secret in ("the-password", "the-user"):
        assert secret not in f"{error.value} {error.value.hint}"
    return error.value


LOGIN = "the-user:the-password@"
ALL = ["$JS.API.>", "b.sessions.>", "b.records.>", "b.live.>", "_INBOX.>"]
GUARD = 'authorization { users: [{ user: "the-user", password: "the-password" }] }'


async def test_servers_that_do_not_fit_are_refused_without_their_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with nats_server(GUARD) as store:
        address = store.address("a", login=LOGIN)
        for wrong in ("the-user:another-the-password@", ""):
            assert "may connect" in (await refused(store.address("a", login=wrong))).message
        (tmp_path / "password").write_text("the-password\n")
        engine = NatsEngine(store.address("a", login="the-user@", password_file=str(tmp_path / "password")))
        await engine.open()
        assert "the-password" not in repr(engine._target)
        await engine.close()
        assert (
            "cannot be read at http://127.0.0.1:1"
            in (await refused(store.address("a", login=LOGIN, monitor="http://127.0.0.1:1"))).message
        )
        monkeypatch.setattr(target, "_LEAST_VERSION", (99, 0))
        assert "it has version" in (await refused(address)).message
    assert "can be reached" in (await refused(f"nats://{LOGIN}127.0.0.1:1")).message


async def test_a_gateway_logs_in_with_an_nkey(tmp_path: Path) -> None:
    key, file = Key(), tmp_path / "nkey"
    file.write_text(f"{key.seed}\n")
    with nats_server(f'authorization {{ users: [{{ nkey: "{key.public}" }}] }}') as store:
        engine = NatsEngine(store.address("a", nkey_file=str(file)))
        await engine.open()
        await publish(engine, "s", 1)
        await engine.close()
        file.write_text(Key().seed)
        assert "may connect" in (await refused(store.address("a", nkey_file=str(file)))).message


async def test_a_gateway_logs_in_with_a_credentials_file_that_is_replaced_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_UNKNOWN_SECONDS", 1.0)
    options, credentials = operated()
    file = tmp_path / "user.creds"
    file.write_text(credentials)
    with nats_server(options) as store:
        engine = NatsEngine(store.address("a", credentials_file=str(file)))
        await engine.open()
        await publish(engine, "s", 1)
        file.unlink()
        store.servers[0].stop()
        store.servers[0].start()
        with pytest.raises(StorageFailedError):
            await publish(engine, "s", 2)
        assert engine.health() != "ok"
        file.write_text(credentials)
        async with asyncio.timeout(60):
            while engine.health() != "ok":
                await asyncio.sleep(0.05)
        await publish(engine, "s", 3)
        assert [data_of(event) for event in await everything(engine, "s")] == [1, 3]
        await engine.close()
        file.write_text(operated()[1])
        assert "may connect" in (await refused(store.address("a", credentials_file=str(file)))).message


@pytest.mark.parametrize("lacks", ALL)
async def test_a_user_without_a_permission_is_refused(monkeypatch: pytest.MonkeyPatch, lacks: str) -> None:
    monkeypatch.setattr(link, "CALL_SECONDS", 0.5)
    publish, subscribe = ([one for one in some if one != lacks] for some in (ALL[:3], ALL[3:]))
    permissions = f"permissions: {{ publish: {publish}, subscribe: {subscribe} }}".replace("'", '"')
    guard = f'authorization {{ users: [{{ user: "the-user", password: "the-password", {permissions} }}] }}'
    with nats_server(guard) as store:
        error = await refused(store.address("b", login=LOGIN))
        assert f"permissions violation for {'publish' if lacks in ALL[:3] else 'subscri'}" in error.message
        assert lacks.rstrip(">").lower() in error.message
        assert "docs/operate/nats.md" in (error.hint or "")


async def test_a_file_that_is_no_key_is_refused_without_its_text(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for text in (None, "", "SUAAAA", f"SUAAAA{Key().seed[6:]}", Key().public, "\xff"):
        if text is not None:
            file.write_text(text, encoding="latin-1")
        for option in ("nkey_file", "credentials_file"):
            error = await refused(f"nats://127.0.0.1:1/?{option}={file}")
            assert error.message.startswith("expected a file")
            assert not text or text not in error.message


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (f"nats://{LOGIN}127.0.0.1:port", "cannot be read"),
        (f"nats://{LOGIN}127.0.0.1,:4222", "an empty host"),
        (f"nats://{LOGIN}127.0.0.1/a.b", "a name of letters"),
        (f"nats://{LOGIN}127.0.0.1/?shard=3", "expected one of"),
        (f"nats://{LOGIN}127.0.0.1/?shards=0", "shards of 1 to 256"),
        (f"nats://{LOGIN}127.0.0.1/?replicas=many", "replicas of 1 to 5"),
        (f"nats://{LOGIN}127.0.0.1/?password_file=/nowhere", "expected a file"),
        (f"nats://{LOGIN}127.0.0.1/?nkey_file=/nowhere", "expected one login"),
        ("nats://127.0.0.1/?nkey_file=/nowhere&credentials_file=/nowhere", "expected one login"),
    ],
)
async def test_an_address_that_is_wrong_is_refused_without_its_password(address: str, reason: str) -> None:
    assert reason in (await refused(address)).message


async def test_servers_that_would_lose_acknowledged_events_are_refused() -> None:
    with nats_server(sync="2m") as store:
        address = store.address()
        error = await refused(address)
        assert "a power cut would lose acknowledged events" in error.message
        await opens(address, sync_unchecked=True)


async def test_one_node_is_refused_for_three_replicas(nats: NatsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_TRIES", 1)
    error = await refused(nats.address(replicas="3"))
    assert "enough nodes for the replicas of stream" in error.message
    assert error.hint == "Start all nodes, or set replicas= in the engine's address."


async def test_a_server_without_jetstream_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_TRIES", 1)
    with nats_server(holds="") as store:
        for checked in (False, True):
            error = await refused(store.address(), sync_unchecked=not checked)
            assert "JetStream" in error.message
            assert "jetstream" in (error.hint or "").lower()
            assert "sync_interval" not in f"{error.message} {error.hint}"


async def test_a_server_that_accepts_small_messages_only_is_refused() -> None:
    with nats_server(payload="1MB") as store:
        error = await refused(store.address())
        assert f"max_payload of at least 2MB, it is {1024 * 1024} bytes" in error.message
        assert "Set max_payload: 8MB" in (error.hint or "")


async def test_a_stream_with_another_configuration_is_refused(nats: NatsStore) -> None:
    address = nats.address()
    name = address.split("/")[3].split("?")[0]
    await opens(address)
    assert "it is one of 2" in (await refused(address.replace("shards=2", "shards=3"))).message
    async with connection_to(nats.servers[0]) as connection:
        for change, reason in (
            (("max_msgs", 1000), "max_msgs = -1, it has 1000"),
            (("republish", None), "republish"),
            (("metadata", {"wakeline": "70", "shards": "2"}), "it has layout 70"),
        ):
            stream = f"{name}-sessions-0"
            info = msgspec.json.decode((await connection.request(f"$JS.API.STREAM.INFO.{stream}")).data)
            config = {**info["config"], change[0]: change[1]}
            await connection.request(f"$JS.API.STREAM.UPDATE.{stream}", msgspec.json.encode(config))
            error = await refused(address)
            assert reason in error.message
            assert stream in error.message
            await connection.request(f"$JS.API.STREAM.UPDATE.{stream}", msgspec.json.encode(info["config"]))
    await opens(address)
