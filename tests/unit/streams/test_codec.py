"""The codec that keeps a stream's envelope readable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.contrib.workflow_streams import PollResult as OfficialResult
from temporalio.converter import (
    DataConverter,
    PayloadCodec,
    SerializationContext,
    WithSerializationContext,
    WorkflowSerializationContext,
)

from wakeline.events import IDENTITY_KEY
from wakeline.streams import EnvelopeCodec, PollInput, PollResult, WorkflowStreamState
from wakeline.streams.codec import IDENTITY, MARK
from wakeline.streams.wire import WireItem, decode_payload, encode_payload

SECRET = "the secret text"


class Backwards(PayloadCodec):
    """Stands for encryption, and counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        self.calls += 1
        return [Payload(metadata={"encoding": b"b"}, data=each.SerializeToString()[::-1]) for each in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        self.calls += 1
        assert all(payload.metadata["encoding"] == b"b" for payload in payloads)
        return [Payload.FromString(payload.data[::-1]) for payload in payloads]


class Together(PayloadCodec):
    """Makes one payload of several, as a codec may."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        held = json.dumps([encode_payload(each) for each in payloads])
        return [Payload(metadata={"encoding": b"t"}, data=held.encode()[::-1])]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        (payload,) = payloads
        return [decode_payload(each) for each in json.loads(payload.data[::-1])]


def item(value: Any, offset: int = 0, **metadata: bytes) -> WireItem:
    payload = DataConverter.default.payload_converter.to_payload(value)
    for key, said in metadata.items():
        payload.metadata[key] = said
    return WireItem("topic", encode_payload(payload), offset)


def converter(codec: PayloadCodec) -> DataConverter:
    return DataConverter(payload_codec=EnvelopeCodec(codec))


async def encoded(coding: DataConverter, value: Any) -> Payload:
    (payload,) = await coding.encode([value])
    return payload


@pytest.mark.parametrize("codec", [Backwards(), Together()])
@pytest.mark.parametrize("kind", [PollResult, OfficialResult])
async def test_of_an_answer_the_items_are_encoded_and_nothing_else(codec: PayloadCodec, kind: type[Any]) -> None:
    coding = converter(codec)
    answer = PollResult([item(SECRET, 3), item({"n": SECRET}, 4)], 5, more_ready=True)
    payload = await encoded(coding, answer)
    assert payload.metadata["encoding"] == b"json/plain"
    # Whoever has no key reads where it stands, and takes the items as they are.
    read: PollResult = DataConverter.default.payload_converter.from_payload(payload, PollResult)
    assert (read.next_offset, read.more_ready, [each.offset for each in read.items]) == (5, True, [3, 4])
    kept = [decode_payload(each.data) for each in read.items]
    assert all(each.metadata["encoding"] in (b"b", b"t") for each in kept)
    assert SECRET.encode() not in b"".join(each.SerializeToString() for each in kept)
    # A device decodes one of them by itself.
    assert await coding.decode([kept[0]]) == [SECRET]
    (back,) = await coding.decode([payload], [kind])
    assert (back.items[1].data, back.next_offset) == (answer.items[1].data, 5)


async def test_the_codec_is_asked_once_for_all_items() -> None:
    codec = Backwards()
    payload = await encoded(converter(codec), PollResult([item(n, n) for n in range(50)], 50))
    assert codec.calls == 1
    await converter(codec).decode([payload])
    assert codec.calls == 2


@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        {"items": [], "next_offset": 0, "more_ready": False, "more": 1},
        {"items": [{"topic": "t", "data": SECRET, "offset": 1}], "next_offset": 0, "more_ready": False},
        {"items": [1], "next_offset": 0, "more_ready": False},
        WorkflowStreamState([item(SECRET)], 7),
        PollInput(["topic"], 3),
    ],
)
async def test_everything_else_is_encoded_as_a_whole(value: Any) -> None:
    coding = converter(Backwards())
    payload = await encoded(coding, value)
    assert payload.metadata["encoding"] == b"b"
    assert SECRET.encode() not in payload.data
    (back,) = await coding.decode([payload], [type(value)])
    assert back == value


async def test_several_payloads_are_each_what_they_are() -> None:
    coding = converter(Backwards())
    values = [SECRET, PollResult([item(SECRET)], 1), 3]
    payloads = await coding.encode(values)
    assert [payload.metadata["encoding"] for payload in payloads] == [b"b", b"json/plain", b"b"]
    assert await coding.decode(payloads, [str, PollResult, int]) == values


async def test_a_question_of_a_reader_without_a_key_is_taken() -> None:
    plain = await encoded(DataConverter.default, PollInput([], 3))
    assert await converter(Backwards()).decode([plain], [PollInput]) == [PollInput([], 3)]
    with pytest.raises(AssertionError):  # anything else must have been encoded, if the codec says so
        await converter(Backwards()).decode([await encoded(DataConverter.default, SECRET)])


async def test_whose_an_item_is_stays_readable_and_is_none_of_the_items_value() -> None:
    assert IDENTITY == IDENTITY_KEY
    identity = b'{"publisher":"p","attempt":1,"sequence":0}'
    coding = converter(Backwards())
    payload = await encoded(coding, PollResult([item(SECRET, wakeline=identity)], 1))
    kept = decode_payload(json.loads(payload.data)["items"][0]["data"])
    assert kept.metadata[IDENTITY_KEY] == identity
    assert identity[::-1] not in kept.data
    (back,) = await coding.decode([payload], [PollResult])
    assert decode_payload(back.items[0].data).metadata[IDENTITY_KEY] == identity


async def test_what_its_publisher_encoded_is_not_encoded_again() -> None:
    identity = b'{"publisher":"p","attempt":1,"sequence":0,"encoded":true}'
    sent = Payload(metadata={"encoding": b"b", IDENTITY_KEY: identity}, data=b"coded")
    answer = PollResult([WireItem("topic", encode_payload(sent)), item(1, 1, wakeline=b"not json")], 2)
    coding = converter(Backwards())
    payload = await encoded(coding, answer)
    assert decode_payload(json.loads(payload.data)["items"][0]["data"]) == sent
    (back,) = await coding.decode([payload], [PollResult])
    assert decode_payload(back.items[0].data) == sent


async def test_the_codec_gets_the_context_if_it_wants_it() -> None:
    class Contextual(Backwards, WithSerializationContext):
        context: SerializationContext | None = None

        def with_context(self, context: SerializationContext) -> Contextual:
            other = Contextual()
            other.context = context
            return other

    context = WorkflowSerializationContext("default", "w")
    with_context = EnvelopeCodec(Contextual()).with_context(context)
    assert isinstance(with_context._codec, Contextual)
    assert with_context._codec.context == context
    plain = EnvelopeCodec(Backwards())
    assert plain.with_context(context) is plain


async def test_without_a_codec_nothing_is_marked() -> None:
    assert MARK not in (await encoded(DataConverter.default, PollResult([item(1)], 1))).metadata
