"""Payloads and failures of Temporal in their reported form: JSON, or else unchanged."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
import structlog
from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.failure.v1 import Failure
from temporalio.common import RawValue
from temporalio.converter import DataConverter

from wakeline.events import IDENTITY_KEY, nests_too_deep
from wakeline.payloads import as_json
from wakeline.payloads import json_of as json_of_any_depth
from wakeline.temporal.failures import RPC_TIMEOUT
from wakeline.text import cut

# The encodings of Temporal's own payload converters; a codec makes others.
_PLAIN: Final = (b"json/plain", b"json/protobuf", b"binary/plain", b"binary/null", b"binary/protobuf")
# A long message is cut; encoded, it cannot be, and is left out where it has more bytes.
_MOST_ENCODED: Final = 64 * 1024
# A codec or a storage that does not answer must not hold up the report of a run's end.
_DECODE_SECONDS: Final = RPC_TIMEOUT.total_seconds()
_log = structlog.get_logger(__name__)


class _Attributes(msgspec.Struct, frozen=True):
    """The payload of a failure's common attributes, as failure converters encode it."""

    message: str


async def failure(converter: DataConverter | None, failure: Failure) -> dict[str, Any]:
    """Return a failure in its reported form: `message`, and the innermost `type` and `cause`.

    A message that is encoded, and cannot be read here, is in `encoded_attributes`, the cause's in `cause_encoded_attributes`;
    of one that is too large there is the size alone, in `encoded_attributes_bytes`. Long texts are cut.
    """
    read = await _decoded_failure(converter, failure)
    innermost = read
    # An activity's failure says "Activity task failed"; what the reader wants to know is what it failed of.
    while innermost.HasField("cause"):
        innermost = innermost.cause
    told = _attributes(read, "message", "encoded_attributes")
    if innermost.HasField("application_failure_info") and innermost.application_failure_info.type:
        told["type"] = cut(innermost.application_failure_info.type)
    if innermost is not read:
        told |= _attributes(innermost, "cause", "cause_encoded_attributes")
    return told


async def result(converter: DataConverter | None, payloads: Payloads, most_bytes: int) -> dict[str, Any]:
    """Return a run's result in its reported form.

    It is `result`, or `result_payload` if it is not JSON or cannot be decoded, or `result_bytes` alone if it is too large.
    A result in external storage is fetched only if it is small enough.

    Args:
        converter: What the gateway decodes with, if anything.
        payloads: The result; nothing is reported if it is empty.
        most_bytes: How large it may be.
    """
    if not payloads.payloads:
        return {}
    if converter is not None and converter.external_storage is not None:
        stored = sum(part.size_bytes for part in payloads.payloads[0].external_payloads)
        if stored > most_bytes:
            return {"result_bytes": stored}
    decoded = await _decoded(converter, payloads.payloads[0], within=_DECODE_SECONDS)
    size = sum(len(payload.data) for payload in (decoded, *payloads.payloads[1:]))
    if size > most_bytes or len(payloads.payloads) > 1:  # no SDK gives more than one
        return {"result_bytes": size}
    data = json_of_any_depth(decoded)
    if data is None or nests_too_deep(b"[%b]" % data):  # it is one level deeper in the event's data
        return {"result_payload": as_json(decoded)}
    return {"result": msgspec.Raw(data)}


async def decoded_item(converter: DataConverter, payload: bytes) -> bytes:
    """Return an item of a stream, decoded if its publisher has encoded it and that is possible."""
    try:
        item = Payload.FromString(payload)
    except DecodeError:
        return payload
    if converter.payload_codec is None or item.metadata.get("encoding") in _PLAIN:
        return payload
    decoded = Payload()
    decoded.CopyFrom(await _decoded(converter, item))
    if IDENTITY_KEY in item.metadata:
        decoded.metadata[IDENTITY_KEY] = item.metadata[IDENTITY_KEY]
    return decoded.SerializeToString()


def json_of(payload: Payload) -> bytes | None:
    """Return a payload's value as JSON; None if it is not JSON or too deep for an event's data."""
    data = json_of_any_depth(payload)
    return None if data is None or nests_too_deep(data) else data


async def _decoded_failure(converter: DataConverter | None, failure: Failure) -> Failure:
    if converter is None or converter.payload_codec is None:
        return failure
    decoded = Failure()
    decoded.CopyFrom(failure)
    try:
        async with asyncio.timeout(_DECODE_SECONDS):
            await converter.payload_codec.decode_failure(decoded)
    except Exception as error:  # noqa: BLE001 - a codec may raise anything, and the end must be reported
        _log.warning("the data converter cannot decode a failure; it is reported unchanged", error=repr(error))
        return failure
    return decoded


async def _decoded(converter: DataConverter | None, payload: Payload, within: float | None = None) -> Payload:
    """Return a payload decoded; unchanged if that fails, or takes longer than so many seconds."""
    if converter is None or (converter.payload_codec is None and converter.external_storage is None):
        return payload
    try:
        async with asyncio.timeout(within):
            if converter.external_storage is not None:  # which resolves references before the codec decodes
                (raw,) = await converter.decode([payload], [RawValue])
                read: Payload = raw.payload
                return read
            assert converter.payload_codec is not None
            (decoded,) = await converter.payload_codec.decode([payload])
    except Exception as error:  # noqa: BLE001 - as above
        _log.warning("the data converter cannot decode a payload; it is reported unchanged", error=repr(error))
        return payload
    return decoded


def _attributes(failure: Failure, message: str, encoded: str) -> dict[str, Any]:
    if not failure.HasField("encoded_attributes"):
        return {message: cut(failure.message)}
    data = json_of(failure.encoded_attributes)
    try:
        if data is not None:
            return {message: cut(msgspec.json.decode(data, type=_Attributes).message)}
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    size = failure.encoded_attributes.ByteSize()
    if size > _MOST_ENCODED:
        return {message: cut(failure.message), f"{encoded}_bytes": size}
    return {message: cut(failure.message), encoded: as_json(failure.encoded_attributes)}
