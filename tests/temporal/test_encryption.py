"""A namespace with a payload codec: a gateway that has the key reads it, one that has none passes on what it cannot read."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.workflow_streams import WorkflowStreamClient as OfficialClient
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes, PayloadCodec
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.codecs import Encrypting, codec_server
from tests.gateways import GatewayProcess
from tests.temporal import encrypted_workflows as workflows
from tests.temporal.test_follower import running_gateway, to_the_end
from wakeline.cli.processes import free_port
from wakeline.client import RemoteCodec, SessionClient, SessionEvent
from wakeline.publisher import SessionPublisher
from wakeline.streams import EnvelopeCodec, WorkflowStreamClient

PATIENCE = 60


def coding(codec: PayloadCodec) -> DataConverter:
    return DataConverter(payload_codec=codec, failure_converter_class=DefaultFailureConverterWithEncodedAttributes)


WRAPPED = coding(EnvelopeCodec(Encrypting()))
BARE = coding(Encrypting())


def marker() -> str:
    """A text that is nowhere else, and not in one piece in this process either before it is asked for."""
    return f"whispered-{uuid.uuid4().hex}"


@asynccontextmanager
async def working(client: Client, converter: DataConverter) -> AsyncIterator[tuple[Client, str]]:
    """A client with the converter, and the queue of a worker with it."""
    config = client.config(active_config=True)
    config["data_converter"] = converter
    secret, queue = Client(**config), f"encrypted-{uuid.uuid4().hex[:8]}"
    kinds = [workflows.Whispers, workflows.OfficialWhispers]
    async with Worker(secret, task_queue=queue, workflows=kinds, activities=[workflows.say]):
        yield secret, queue


async def start(client: Client, queue: str, kind: Any, text: str, url: str, rolls: int = 0) -> WorkflowHandle[Any, Any]:
    secrets, name = workflows.Secrets(text, url, rolls), f"secret-{uuid.uuid4().hex[:8]}"
    handle: WorkflowHandle[Any, Any] = await client.start_workflow(kind.run, secrets, id=name, task_queue=queue)
    return handle


async def read(url: str, session: str, **how: Any) -> list[SessionEvent[Any]]:
    async with asyncio.timeout(PATIENCE), SessionClient(url, **how) as client:
        events = client.session(session).events(topics="*,$run.closed", until="settled")
        return [event async for event in events]


def said(events: list[SessionEvent[Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for event in events:
        found.setdefault(event.topic, []).append(event.data)
    return found


def in_memory(pid: int, wanted: bytes) -> bool:
    """Whether a process has this in any of its memory that can be read."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            region = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if region is None or line.endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            first, last = (int(part, 16) for part in region.groups())
            if _is_in(memory, first, last, wanted):
                return True
    return False


def _is_in(memory: Any, first: int, last: int, wanted: bytes) -> bool:
    tail = b""
    memory.seek(first)
    while first < last:
        try:
            piece = memory.read(min(last - first, 1 << 24))
        except OSError:  # a region that cannot be read after all
            return False
        if not piece:
            return False
        if wanted in tail + piece:
            return True
        tail = piece[-len(wanted) :]
        first += len(piece)
    return False


def in_files(folder: Path, wanted: bytes) -> bool:
    return any(wanted in path.read_bytes() for path in folder.rglob("*") if path.is_file())


@asynccontextmanager
async def gateway_process(temporal: WorkflowEnvironment, data: Path) -> AsyncIterator[GatewayProcess]:
    address = temporal.client.service_client.config.target_host
    process = GatewayProcess(data, "--temporal", address)
    await process.start()
    try:
        yield process
    finally:
        await process.stop()


@pytest.mark.parametrize("keeps", [True, False], ids=["encrypted", "control"])
async def test_a_gateway_without_the_key_never_has_the_plain_text(
    temporal: WorkflowEnvironment, client: Client, tmp_path: Path, keeps: bool
) -> None:
    converter = WRAPPED if keeps else DataConverter.default
    text, data = marker(), tmp_path / "data"
    async with gateway_process(temporal, data) as process, working(client, converter) as (secret, queue):
        handle = await start(secret, queue, workflows.Whispers, text, process.url, rolls=1)
        async with codec_server() as server:
            codec = RemoteCodec(server.url) if keeps else None
            events = await read(process.url, handle.id, codec=codec)
        found = said(events)
        assert found["said"] == [f"{text} 1", f"{text} 0"]
        assert (found["signalled"], found["published"]) == ([text], [{"text": text}])
        assert found["$run.closed"][0]["failure"] == {"message": text, "type": "Whispered"}
        assert process.process is not None
        held = in_memory(process.process.pid, text.encode()), in_files(data, text.encode())
    assert held == ((False, False) if keeps else (True, True))
    assert (text in process.log.read_text()) is False
    if keeps:
        assert not any(text.encode() in event.raw for event in events)
        assert all(event.payload is not None for event in events if not event.topic.startswith("$"))


@pytest.mark.parametrize("converter", [WRAPPED, BARE], ids=["wrapped", "bare"])
async def test_a_gateway_with_the_data_converter_reads_everything(
    temporal: WorkflowEnvironment, client: Client, tmp_path: Path, converter: DataConverter
) -> None:
    text = marker()
    how = {"data_converter": f"{__name__}:BARE"}
    async with running_gateway(temporal, tmp_path, **how) as served, working(client, converter) as (secret, queue):
        handle = await start(secret, queue, workflows.Whispers, text, served.url)
        events = await to_the_end(served, handle.id)
    data: dict[str, Any] = {event["topic"]: event.get("data") for event in events}
    assert (data["said"], data["signalled"]) == (f"{text} 0", text)
    assert data["$run.closed"]["failure"] == {"message": text, "type": "Whispered"}
    # What a publisher sends itself is as it was sent, whoever has the key.
    (published,) = [event for event in events if event["topic"] == "published"]
    assert "payload" in published


async def test_the_official_host_and_client_keep_the_envelope_too(
    temporal: WorkflowEnvironment, client: Client, tmp_path: Path
) -> None:
    text = marker()
    async with running_gateway(temporal, tmp_path) as served, working(client, WRAPPED) as (secret, queue):
        handle = await start(secret, queue, workflows.OfficialWhispers, text, served.url)
        readers: list[Any] = [OfficialClient, WorkflowStreamClient]
        for reader in readers:
            items = reader.create(secret, handle.id).subscribe(result_type=str)
            assert (await asyncio.wait_for(anext(items), PATIENCE)).data == text
            await items.aclose()
        await handle.signal("close")
        found = said(await read(served.url, handle.id, codec=Encrypting()))
        assert found["said"] == [text]
        assert await handle.result() == text


async def test_what_takes_the_detour_is_encoded_once(
    temporal: WorkflowEnvironment, client: Client, tmp_path: Path
) -> None:
    text = marker()
    async with running_gateway(temporal, tmp_path) as served, working(client, WRAPPED) as (secret, queue):
        handle = await start(secret, queue, workflows.OfficialWhispers, text, served.url)
        nowhere = f"http://127.0.0.1:{free_port()}"
        publishing = SessionPublisher(
            nowhere, session=handle.id, on_unavailable="workflow", temporal_client=secret, data_converter=WRAPPED
        )
        async with publishing as session:
            for n in range(3):
                await session.topic("detoured").publish(f"{text} {n}", key="k")
        await handle.signal("close")
        events = await read(served.url, handle.id, codec=Encrypting())
    detoured = [event for event in events if event.topic == "detoured"]
    assert [(event.data, event.key) for event in detoured] == [(f"{text} {n}", "k") for n in range(3)]
    assert all(event.payload and "wakeline" not in event.payload["metadata"] for event in detoured)
    assert not any(text.encode() in event.raw for event in events)


async def until(asked: Callable[[], Any]) -> Any:
    async with asyncio.timeout(PATIENCE):
        while not (found := await asked()):
            await asyncio.sleep(0.05)
    return found


async def test_a_stream_that_cannot_be_read_is_told_with_what_to_do(
    temporal: WorkflowEnvironment, client: Client, tmp_path: Path
) -> None:
    how = {"drain_grace": 1.0}
    async with running_gateway(temporal, tmp_path, **how) as served, working(client, BARE) as (secret, queue):
        handle = await start(secret, queue, workflows.OfficialWhispers, marker(), served.url)
        await served.call("GET", f"/v1/sessions/{handle.id}/events")

        async def told() -> Any:
            _, health = await served.call("GET", "/readyz")
            return health if health["temporal"].startswith("encoded: ") else None

        health = await until(told)
        assert health["status"] == "degraded"
        assert handle.id in health["temporal"]
        assert "data_converter" in health["temporal"]
        assert "EnvelopeCodec" in health["temporal"]
        await handle.signal("close")
        events = await to_the_end(served, handle.id)
        assert [e["topic"] for e in events] == ["$run.started", "$run.closed", "$session.settled"]
        assert (events[1]["data"]["status"], events[1]["data"]["drained"]) == ("completed", False)
