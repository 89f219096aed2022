"""From values to events: JSON as JSON, everything else as the payload it is."""

from __future__ import annotations

import dataclasses
import json
import uuid
from base64 import b64decode
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

import msgspec
import pytest
from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.converter import DataConverter, DefaultPayloadConverter, PayloadCodec

from tests.support import Served
from wakeline.client import SessionClient
from wakeline.errors import EventTooLargeError
from wakeline.publisher import SessionPublisher, ValueRefusedError
from wakeline.publisher.topics import Append
from wakeline.publisher.values import DATA, PAYLOAD, Values


@dataclasses.dataclass
class Delta:
    text: str
    at: datetime | None = None


class Model:
    """Like a model of pydantic: knows how to be JSON."""

    def model_dump_json(self) -> str:
        return '{\n"a": [1,\r\n2]}'


class Struct(msgspec.Struct):
    n: int


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("é\n", '"é\\n"'),
        (None, "null"),
        ({"a": [1, 2.5, True]}, '{"a":[1,2.5,true]}'),
        (Delta("x", datetime(2026, 1, 1, tzinfo=UTC)), '{"text":"x","at":"2026-01-01T00:00:00Z"}'),
        (Struct(3), '{"n":3}'),
        (Model(), '{"a":[1,2]}'),
        ({"in": [Model()]}, '{"in":[{"a":[1,2]}]}'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Payload(metadata={"encoding": b"json/plain"}, data=b'{"a":\n1}'), '{"a":1}'),
        (Payload(metadata={"encoding": b"binary/null"}), "null"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_json_is_data_on_one_line(value: Any, written: str) -> None:
    assert Values().write(value) == (DATA, written.encode())


@pytest.mark.parametrize(
    ("value", "encoding", "data"),
    [
        (b"\x00\xff", "binary/plain", b"\x00\xff"),
        (bytearray(b"ab"), "binary/plain", b"ab"),
        (memoryview(b"ab"), "binary/plain", b"ab"),
        (WorkflowExecution(workflow_id="w"), "json/protobuf", b'{"workflowId":"w"}'),
        (Payload(metadata={"encoding": b"binary/own"}, data=b"?"), "binary/own", b"?"),
        (Payload(metadata={"encoding": b"json/plain"}, data=b"{broken"), "json/plain", b"{broken"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_everything_else_is_a_payload(value: Any, encoding: str, data: bytes) -> None:
    field, written = Values().write(value)
    payload = json.loads(written)
    assert field == PAYLOAD
    assert (b64decode(payload["metadata"]["encoding"]).decode(), b64decode(payload["data"])) == (encoding, data)


@pytest.mark.parametrize(
    "value", [object(), float, {1: object()}, lambda: 1], ids=["object", "type", "dict", "function"]
)
def test_what_no_event_can_hold_is_refused(value: Any) -> None:
    with pytest.raises(ValueRefusedError, match="expected a value"):
        Values().write(value)


def test_an_event_that_is_too_large_is_refused_before_it_is_taken() -> None:
    Values().write("x" * (1024 * 1024 - 2))
    with pytest.raises(EventTooLargeError, match="got 1048577") as raised:
        Values().write("x" * (1024 * 1024 - 1))
    assert "whatever the gateway's max_event_bytes is" in raised.value.hint


class Upper(DefaultPayloadConverter):
    def to_payloads(self, values: Sequence[Any]) -> list[Payload]:
        return [Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(str(v).upper()).encode()) for v in values]


def test_a_converter_of_one_s_own_has_its_say() -> None:
    for converter in (Upper(), DataConverter(payload_converter_class=Upper)):
        assert Values(converter).write("a") == (DATA, b'"A"')


class Backwards(PayloadCodec):
    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload(metadata={"encoding": b"binary/backwards"}, data=p.SerializeToString()[::-1]) for p in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload.FromString(p.data[::-1]) for p in payloads]


async def test_a_codec_has_its_say_and_who_has_it_too_reads_the_value(served: Served) -> None:
    converter = DataConverter(payload_codec=Backwards())
    async with SessionPublisher(served.url, session="s", data_converter=converter) as session:
        await session.topic("t").publish({"secret": 1})
    async with SessionClient(served.url, data_converter=converter) as client:
        page = await client.session("s").page()
    assert [event.data for event in page.events] == [{"secret": 1}]
    assert all(b"secret" not in event.raw and event.payload for event in page.events)


async def test_a_codec_that_fails_for_a_while_is_asked_again_and_one_that_refuses_is_not(served: Served) -> None:
    class Failing(Backwards):
        errors: ClassVar[list[Exception]] = []

        async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
            if self.errors:
                raise self.errors.pop(0)
            return await super().encode(payloads)

    Failing.errors = [ConnectionError("no key server"), RuntimeError("still none")]
    converter = DataConverter(payload_codec=Failing())
    async with SessionPublisher(served.url, session="s", data_converter=converter) as session:
        await session.topic("t").publish(1)
        Failing.errors = [ValueError("not this one")]
        with pytest.raises(ValueRefusedError, match="not this one"):
            await session.topic("t").publish(2)
        await session.topic("t").publish(3)
    Failing.errors = [ConnectionError("no key server")]
    with pytest.raises(ValueRefusedError, match="no key server"):
        async with SessionPublisher(served.url, session="s", data_converter=converter, on_unavailable="error") as other:
            await other.topic("t").publish(4)
    async with SessionClient(served.url, data_converter=converter) as client:
        assert [event.data for event in (await client.session("s").page()).events] == [1, 3]


async def test_what_a_codec_made_cannot_be_merged_and_is_refused_before_it_is_taken(served: Served) -> None:
    converter = DataConverter(payload_codec=Backwards())
    async with SessionPublisher(served.url, session="s", data_converter=converter) as session:
        kinds: list[tuple[Append, Any]] = [("text", "a"), ("list", 1), ("json-merge", {})]
        for append, piece in kinds:
            message = session.topic("m", append=append).message("m")
            with pytest.raises(ValueRefusedError, match="cannot be merged"):
                await message.append(piece)
            with pytest.raises(ValueRefusedError):
                await message.complete(["whole"] if append == "list" else "whole")
        await session.topic("t").publish(1)
    _, page = await served.call("GET", "/v1/sessions/s/events")
    assert [event["topic"] for event in page["events"]] == ["t"]
