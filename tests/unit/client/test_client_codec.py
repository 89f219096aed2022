"""Payloads that a codec server decodes, and what a codec makes of a run's end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from aiohttp import web
from temporalio.api.common.v1 import Payload
from temporalio.converter import DataConverter

from tests.codecs import CodecServer, Encrypting, codec_server, to_json
from tests.support import Served
from wakeline.cli.processes import free_port
from wakeline.client import CodecError, EventDataError, RemoteCodec, SessionClient, SyncSessionClient
from wakeline.client.structs import SessionEvent
from wakeline.client.values import Values
from wakeline.client.view import decode_event
from wakeline.errors import RequestInvalidError, UnavailableError

SECRET = "the secret text"
AT_ONCE = timedelta(0)


@dataclass
class Order:
    n: int


async def payloads(*values: Any) -> list[dict[str, Any]]:
    coding = DataConverter(payload_codec=Encrypting())
    return [to_json(payload) for payload in await coding.encode(values)]


async def publish(served: Served, *values: Any) -> None:
    await served.publish("s", *[{"topic": "t", "payload": payload} for payload in await payloads(*values)])
    await served.call("POST", "/v1/sessions/s/close")


def codec(server: CodecServer, **how: Any) -> RemoteCodec:
    return RemoteCodec(server.url, namespace="shop", retry_timeout=AT_ONCE, **how)


async def test_a_page_is_decoded_by_one_request(served: Served) -> None:
    await publish(served, {"n": 1}, SECRET, {"n": 3})
    async with codec_server() as server:
        tokens = iter(["Bearer one", "Bearer two"])

        async def headers() -> dict[str, str]:
            return {"Authorization": next(tokens)}

        async with SessionClient(served.url, codec=codec(server, headers=headers)) as client:
            page = await client.session("s").page()
        assert [event.data for event in page.events[:3]] == [{"n": 1}, SECRET, {"n": 3}]
        assert server.asked == [("decode", 3)]
        assert (server.headers["X-Namespace"], server.headers["Authorization"]) == ("shop", "Bearer one")


async def test_a_stream_is_decoded_and_typed(served: Served) -> None:
    await publish(served, {"n": 1}, {"n": 2})
    async with codec_server() as server, SessionClient(served.url, codec=codec(server)) as client:
        orders = [event.data async for event in client.session("s").events(topics="t", type=Order)]
    assert orders == [Order(1), Order(2)]


async def test_the_synchronous_client_takes_it_too(served: Served) -> None:
    await publish(served, SECRET)

    def read(url: str) -> Any:
        with SyncSessionClient(served.url, codec=RemoteCodec(url)) as client:
            return client.session("s").page().events[0].data

    async with codec_server() as server:
        assert await asyncio.to_thread(read, server.url) == SECRET


async def test_one_that_cannot_be_decoded_is_told_and_the_others_are_read(served: Served) -> None:
    (bad,) = await payloads(SECRET)
    bad["data"] = bad["data"][:-8] + "AAAAAAA="
    events = [{"topic": "t", "payload": payload} for payload in (*await payloads(1), bad, *await payloads(3))]
    await served.publish("s", *events)
    await served.call("POST", "/v1/sessions/s/close")
    got: list[Any] = []
    failed: list[EventDataError] = []
    async with codec_server() as server, SessionClient(served.url, codec=codec(server)) as client:
        stream = client.session("s").events(topics="t")
        while True:
            try:
                got.append((await anext(stream)).data)
            except EventDataError as error:
                got.append("failed")
                failed.append(error)
            except StopAsyncIteration:
                break
    assert got == [1, "failed", 3]
    assert isinstance(failed[0].__cause__, CodecError)
    assert failed[0].event.payload == bad


async def test_a_server_that_is_away_is_tried_again_and_then_told() -> None:
    (payload,) = await DataConverter(payload_codec=Encrypting()).encode([SECRET])
    async with codec_server() as server:
        server.failing, server.status = 2, 503
        async with RemoteCodec(server.url) as patient:
            (decoded,) = await patient.decode([payload])
            assert (decoded.data, len(server.asked)) == (f'"{SECRET}"'.encode(), 3)
            (encoded,) = await patient.encode([decoded])
            assert encoded.metadata["encoding"] == b"binary/encrypted"
        server.failing, server.status = 1, 403
        async with codec(server) as refused:
            with pytest.raises(CodecError, match=r"/shop/decode, got 403: b'no'"):
                await refused.decode([payload])
    async with RemoteCodec(f"http://127.0.0.1:{free_port()}", retry_timeout=AT_ONCE) as away:
        with pytest.raises(UnavailableError, match="the codec server cannot be reached: connection refused"):
            await away.decode([payload])
    with pytest.raises(RequestInvalidError, match="URL of a codec server"):
        RemoteCodec("codec.example")


async def test_a_server_that_does_not_answer_in_time_is_retried_from_the_first_request_on() -> None:
    asked, answers = [], asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(request.path)
        await answers.wait()
        return web.Response()

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url, seconds = f"http://127.0.0.1:{runner.addresses[0][1]}", timedelta(seconds=0.5)
        async with RemoteCodec(url, timeout=2 * seconds, retry_timeout=seconds) as asking:
            with pytest.raises(UnavailableError, match="did not answer in time"):
                await asking.decode([Payload()])
        assert asked == ["/decode"]
    finally:
        answers.set()
        await runner.cleanup()


@pytest.mark.parametrize("body", ["{}", "no", '{"payloads": [{"data": "?"}]}', '{"payloads": [1]}'])
async def test_an_answer_that_is_none_is_told(body: str) -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(text=body)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with RemoteCodec(f"http://127.0.0.1:{runner.addresses[0][1]}") as asking:
            with pytest.raises(CodecError, match="expected payloads"):
                await asking.decode([Payload()])
    finally:
        await runner.cleanup()


class Counting(Encrypting):
    def __init__(self) -> None:
        super().__init__()
        self.decoded: list[int] = []

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        self.decoded.append(len(payloads))
        return await super().decode(payloads)


async def end(converter: DataConverter | None, told: dict[str, Any]) -> Any:
    raw = msgspec.json.encode({"offset": 0, "topic": "$run.closed", "data": told, "time": "2026-11-21T05:14:43.123Z"})
    (event,) = await Values(None, converter).events([(decode_event(raw), "c-1", raw)])
    assert isinstance(event, SessionEvent)
    return event.data


async def test_how_a_run_ended_is_decoded() -> None:
    attributes, cause, result = await payloads({"message": SECRET, "stack_trace": ""}, {"message": "why"}, [SECRET])
    told = {
        "status": "failed",
        "failure": {"message": "Encoded failure", "encoded_attributes": attributes, "type": "Bad"},
        "result_payload": result,
    }
    coding = DataConverter(payload_codec=Encrypting())
    expected = {"status": "failed", "failure": {"message": SECRET, "type": "Bad"}, "result": [SECRET]}
    assert await end(coding, told) == expected
    assert await end(None, told) == told
    assert await end(DataConverter(payload_codec=Encrypting(bytes(32))), told) == told
    caused = {"failure": {"message": "m", "cause": "Encoded failure", "cause_encoded_attributes": cause}}
    assert await end(coding, caused) == {"failure": {"message": "m", "cause": "why"}}
    assert await end(coding, {"status": "completed"}) == {"status": "completed"}


async def test_many_events_are_decoded_together(served: Served) -> None:
    await publish(served, *range(250))
    counting = Counting()
    async with SessionClient(served.url, codec=counting) as client:
        data = [event.data async for event in client.session("s").events(topics="t")]
    assert data == list(range(250))
    assert len(counting.decoded) < 25
    assert max(counting.decoded) <= 100


async def test_a_view_decodes_together_too(served: Served) -> None:
    await publish(served, *range(150))
    counting = Counting()
    async with SessionClient(served.url, codec=counting) as client, client.session("s").view() as view:
        async for _ in view:
            pass
        assert [event.data for event in view.events][:150] == list(range(150))
    assert len(counting.decoded) < 25


async def test_threads_with_event_loops_of_their_own_share_a_codec() -> None:
    """A worker encodes with its client's codec, and the publishers of its `def` activities do so in their own thread."""
    payload = Payload(metadata={"encoding": b"json/plain"}, data=b"1")
    async with codec_server() as server, codec(server) as shared:
        (encoded,) = await shared.encode([payload])

        async def elsewhere() -> list[Payload]:
            async with shared:
                return await shared.decode([encoded])

        assert await asyncio.to_thread(lambda: asyncio.run(elsewhere())) == [payload]
        assert await asyncio.to_thread(lambda: asyncio.run(elsewhere())) == [payload]
        assert await shared.decode([encoded]) == [payload]
