"""What Temporal keeps as payloads, as `$run.closed` tells it."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.failure.v1 import Failure
from temporalio.converter import (
    DataConverter,
    DefaultFailureConverterWithEncodedAttributes,
    DefaultPayloadConverter,
    ExternalStorage,
    PayloadCodec,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
)
from temporalio.exceptions import ActivityError, ApplicationError, RetryState

from tests.storage import InMemory
from wakeline.gateway.reaching import reported

MARK = "the secret text"


class Backwards(PayloadCodec):
    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload(metadata={"encoding": b"b"}, data=each.SerializeToString()[::-1]) for each in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload.FromString(each.data[::-1]) if each.metadata["encoding"] == b"b" else each for each in payloads]


class Broken(Backwards):
    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        raise RuntimeError("no key")


class Silent(InMemory):
    """Stores, and never returns what it has stored."""

    asked = 0

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        self.asked += 1
        await asyncio.Event().wait()
        raise AssertionError("expected no answer")


class SilentCodec(Backwards):
    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        await asyncio.Event().wait()
        raise AssertionError("expected no answer")


CODED = DataConverter(payload_codec=Backwards(), failure_converter_class=DefaultFailureConverterWithEncodedAttributes)


def plain(told: dict[str, Any]) -> Any:
    return json.loads(msgspec.json.encode(told))


async def failure_of(converter: DataConverter, *, cause: bool) -> Failure:
    error: BaseException = ApplicationError(MARK, type="Bad")
    if cause:
        outer = ActivityError(
            "Activity task failed",
            scheduled_event_id=1,
            started_event_id=2,
            identity="i",
            activity_type="t",
            activity_id="a",
            retry_state=RetryState.MAXIMUM_ATTEMPTS_REACHED,
        )
        outer.__cause__ = error
        error = outer
    failure = Failure()
    await converter.encode_failure(error, failure)
    return failure


async def test_a_failure_tells_its_message_and_what_it_failed_of() -> None:
    simple = await failure_of(DataConverter.default, cause=False)
    assert await reported.failure(None, simple) == {"message": MARK, "type": "Bad"}
    caused = await failure_of(DataConverter.default, cause=True)
    assert await reported.failure(None, caused) == {"message": "Activity task failed", "type": "Bad", "cause": MARK}


async def test_an_encoded_failure_is_read_with_the_converter_and_kept_encoded_without() -> None:
    failure = await failure_of(CODED, cause=True)
    before = failure.SerializeToString()
    expected = {"message": "Activity task failed", "type": "Bad", "cause": MARK}
    assert await reported.failure(CODED, failure) == expected
    kept = await reported.failure(None, failure)
    assert {key: kept[key] for key in ("message", "cause", "type")} == {
        "message": "Encoded failure",
        "cause": "Encoded failure",
        "type": "Bad",
    }
    data = b64decode(kept["cause_encoded_attributes"]["data"])
    assert MARK.encode() in Payload.FromString(data[::-1]).data
    assert MARK not in str(kept)
    assert failure.SerializeToString() == before


async def test_attributes_that_no_codec_encoded_are_read_without_a_converter() -> None:
    converter = DataConverter(failure_converter_class=DefaultFailureConverterWithEncodedAttributes)
    assert await reported.failure(None, await failure_of(converter, cause=False)) == {"message": MARK, "type": "Bad"}


async def test_a_codec_that_cannot_decode_does_not_keep_the_end_from_being_told() -> None:
    failing = DataConverter(payload_codec=Broken())
    kept = await reported.failure(failing, await failure_of(CODED, cause=False))
    assert kept["message"] == "Encoded failure"
    assert "encoded_attributes" in kept
    (payload,) = await CODED.encode([MARK])
    assert "result_payload" in await reported.result(failing, Payloads(payloads=[payload]), 1000)


@pytest.mark.parametrize(("value", "expected"), [({"a": [1]}, {"a": [1]}), (None, None), ("ü", "ü")])
async def test_a_result_is_told_as_json(value: Any, expected: Any) -> None:
    for converter in (DataConverter.default, CODED):
        payloads = Payloads(payloads=await converter.encode([value]))
        assert plain(await reported.result(converter, payloads, 1000)) == {"result": expected}


async def test_a_result_that_is_not_json_comes_as_it_is() -> None:
    (payload,) = DefaultPayloadConverter().to_payloads([b"bytes"])
    kept = await reported.result(None, Payloads(payloads=[payload]), 1000)
    assert b64decode(kept["result_payload"]["data"]) == b"bytes"
    coded = Payloads(payloads=await CODED.encode([MARK]))
    kept = await reported.result(None, coded, 1000)
    assert b64decode(kept["result_payload"]["metadata"]["encoding"]) == b"b"
    assert MARK not in str(kept)


async def test_a_result_too_large_is_told_by_its_size() -> None:
    payloads = Payloads(payloads=await DataConverter.default.encode(["x" * 100]))
    assert await reported.result(None, payloads, 101) == {"result_bytes": 102}
    assert await reported.result(None, Payloads(), 101) == {}


async def test_a_result_in_a_storage_that_does_not_answer_is_passed_on_as_a_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reported, "_DECODE_SECONDS", 0.01)
    storing = DataConverter(external_storage=ExternalStorage(drivers=[Silent()], payload_size_threshold=10))
    payloads = Payloads(payloads=await storing.encode(["x" * 100]))
    async with asyncio.timeout(60):
        kept = await reported.result(storing, payloads, 1000)
    message = b64decode(kept["result_payload"]["metadata"]["messageType"])
    assert message == b"temporal.api.sdk.v1.ExternalStorageReference"


async def test_a_stored_result_too_large_is_told_by_its_size_and_not_fetched() -> None:
    silent = Silent()
    storing = DataConverter(external_storage=ExternalStorage(drivers=[silent], payload_size_threshold=10))
    payloads = Payloads(payloads=await storing.encode(["x" * 1000]))
    async with asyncio.timeout(60):
        kept = await reported.result(storing, payloads, 1000)
    (stored,) = silent.kept.values()
    assert (kept, silent.asked) == ({"result_bytes": len(stored)}, 0)


async def test_a_codec_that_does_not_answer_does_not_keep_the_end_from_being_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reported, "_DECODE_SECONDS", 0.01)
    silent = DataConverter(payload_codec=SilentCodec())
    async with asyncio.timeout(60):
        kept = await reported.failure(silent, await failure_of(CODED, cause=False))
        result = await reported.result(silent, Payloads(payloads=await CODED.encode([MARK])), 1000)
    assert "encoded_attributes" in kept
    assert "result_payload" in result


async def test_long_messages_are_cut_and_large_encoded_ones_left_out() -> None:
    failure = Failure(message="é" * 10_000, cause=Failure(message="c" * 10_000))
    read = await reported.failure(None, failure)
    assert read["message"] == "é" * 4096 + "… (cut, 20000 bytes in all)"
    assert read["cause"] == "c" * 8192 + "… (cut, 10000 bytes in all)"
    for level in (failure, failure.cause):
        level.message = "Encoded failure"
        level.encoded_attributes.data = b"x" * 100_000
    size = failure.encoded_attributes.ByteSize()
    assert await reported.failure(None, failure) == {
        "message": "Encoded failure",
        "encoded_attributes_bytes": size,
        "cause": "Encoded failure",
        "cause_encoded_attributes_bytes": size,
    }
