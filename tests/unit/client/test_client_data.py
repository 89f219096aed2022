"""What `data` becomes: plain JSON, a type of the reader's own, or what a data converter makes of a Temporal payload."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from temporalio.api.common.v1 import Payload
from temporalio.converter import DataConverter, PayloadCodec

from tests.support import Served
from tests.unit.transports.scripted import frame, opening, scripted
from wakeline.client import EventDataError, SessionClient
from wakeline.errors import BodyInvalidError


@dataclass
class Status:
    state: str
    at: datetime | None = None


class Step(msgspec.Struct, tag=True):
    number: int


class Done(msgspec.Struct, tag=True):
    total: int


async def test_data_is_read_as_the_type(served: Served) -> None:
    async with SessionClient(served.url) as client:
        session = client.session("s")
        at = datetime(2026, 11, 21, 5, 14, tzinfo=UTC)
        await session.publish("status", Status("packed", at))
        await session.publish_many([("step", Step(1)), ("step", Done(9))])
        assert [event.data async for event in _three(session.events())] == [
            {"state": "packed", "at": "2026-11-21T05:14:00Z"},
            {"type": "Step", "number": 1},
            {"type": "Done", "total": 9},
        ]
        async with session.events(topics="status", type=Status) as typed:
            assert (await anext(typed)).data == Status("packed", at)
        page = await session.page(topics=["step"], type=Step | Done)
        assert [event.data for event in page.events] == [Step(1), Done(9)]
        with pytest.raises(EventDataError, match="data of topic 'status' at offset 0 to be Step"):
            await session.page(type=Step)


async def _three(events: Any) -> Any:
    async with events:
        for _ in range(3):
            yield await anext(events)


async def test_data_that_does_not_fit_is_told_and_reading_goes_on(served: Served) -> None:
    async with SessionClient(served.url) as client:
        session = client.session("s")
        await session.publish_many([("status", {"state": 1}), ("status", {"state": "packed"})])
        events = session.events(type=Status)
        with pytest.raises(EventDataError) as raised:
            await anext(events)
        assert raised.value.message == (
            "expected data of topic 'status' at offset 0 to be Status: Expected `str`, got `int` - at `$.state`"
        )
        assert raised.value.details == {"offset": 0, "topic": "status"}
        assert raised.value.event.data == {"state": 1}
        assert (await anext(events)).data == Status("packed")
        await events.aclose()


async def test_wakelines_own_events_stay_plain() -> None:
    async with (
        scripted(opening(0) + frame(0, {"status": "failed"}, topic="$run.closed")) as server,
        SessionClient(server.url) as client,
        client.session("s").events(type=Status) as events,
    ):
        assert (await anext(events)).data == {"status": "failed"}


async def test_bytes_that_are_no_text_are_told_and_reading_goes_on() -> None:
    stream = opening(0) + frame(0, "TEXT").replace(b"TEXT", b"\xff") + frame(1)
    async with (
        scripted(stream) as server,
        SessionClient(server.url) as client,
        client.session("s").events() as events,
    ):
        with pytest.raises(EventDataError, match="at offset 0 to be JSON"):
            await anext(events)
        assert (await anext(events)).offset == 1


class Upside(PayloadCodec):
    """Turns the bytes around, as an encryption would."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload(metadata={"encoding": b"upside"}, data=p.SerializeToString()[::-1]) for p in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload.FromString(p.data[::-1]) for p in payloads]


CONVERTER = DataConverter(payload_codec=Upside())


async def payload_frame(offset: int, value: Any) -> bytes:
    (payload,) = await CONVERTER.encode([value])
    wire = {
        "metadata": {key: base64.b64encode(text).decode() for key, text in payload.metadata.items()},
        "data": base64.b64encode(payload.data).decode(),
    }
    return frame(offset, payload=wire)


async def test_a_payload_is_decoded_by_the_data_converter_or_handed_out_as_it_came() -> None:
    stream = opening(0) + await payload_frame(0, Status("packed")) + await payload_frame(1, "no status")
    async with scripted(stream) as server:
        async with SessionClient(server.url, data_converter=CONVERTER) as client:
            async with client.session("s").events() as plain:
                assert (await anext(plain)).data == {"state": "packed", "at": None}
            async with client.session("s").events(type=Status) as typed:
                assert (await anext(typed)).data == Status("packed")
                with pytest.raises(EventDataError, match="topic 't' at offset 1 to be Status"):
                    await anext(typed)
        async with SessionClient(server.url) as client:
            async with client.session("s").events() as raw:
                event = await anext(raw)
                assert (event.data, event.payload is not None) == (None, True)
            async with client.session("s").events(type=Status) as typed:
                with pytest.raises(EventDataError, match="the client was given no data_converter"):
                    await anext(typed)


@pytest.mark.parametrize("data", [object(), {1j: 2}])
async def test_data_that_json_cannot_say_is_refused_before_anything_is_sent(data: Any) -> None:
    async with scripted(b"") as server, SessionClient(server.url) as client:
        with pytest.raises(BodyInvalidError, match="expected data that can be written as JSON"):
            await client.session("s").publish("t", data)
        assert server.requests == []
