"""Converts a value to the JSON after `"data":` or `"payload":` in an event."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import msgspec
from temporalio.api.common.v1 import Payload
from temporalio.converter import DataConverter, DefaultPayloadConverter, PayloadConverter

from wakeline.errors import EventTooLargeError
from wakeline.errors.publishing import ValueRefusedError
from wakeline.events import MAX_DEPTH, nests_too_deep
from wakeline.logs import get_logger
from wakeline.outages import Outage
from wakeline.payloads import as_json, json_of
from wakeline.presentable import converted, has_half, presentable, said
from wakeline.retry import Backoff

logger = get_logger(__name__)

MAX_EVENT_BYTES: Final = 1024 * 1024

DATA: Final = b',"data":'
PAYLOAD: Final = b',"payload":'

Converter: TypeAlias = DataConverter | PayloadConverter
Written: TypeAlias = tuple[bytes, bytes]
"""The event's field, `DATA` or `PAYLOAD`, and its JSON."""

_UNWRITABLE: Final = (TypeError, ValueError, OverflowError, msgspec.MsgspecError, RecursionError)


class Values:
    """Writes the values of one publisher.

    Args:
        converter: The user's converter; None or Temporal's default is plain JSON by msgspec, which is much faster.
        codec_retry: Seconds for which a codec that fails is retried.
    """

    def __init__(self, converter: Converter | None = None, codec_retry: float = 0.0) -> None:
        self._codec_retry = codec_retry
        self._outage = Outage(logger, "The payload codec of a publisher")
        codec = isinstance(converter, DataConverter) and converter.payload_codec is not None
        payloads = converter.payload_converter if isinstance(converter, DataConverter) else converter
        self._payloads = payloads if payloads is not None and not _is_default(payloads) else None
        self._default: PayloadConverter | None = None
        self._encode = msgspec.json.Encoder(enc_hook=_written_by_itself).encode
        self._codec = converter.payload_codec if codec and isinstance(converter, DataConverter) else None
        self.write_later: Callable[[Any], Awaitable[Written]] | None = self._coded if self._codec is not None else None
        """Call it in place of `write` unless it is None: it awaits the codec."""

    def write(self, value: Any) -> Written:
        """Return a value as JSON.

        Raises:
            ValueRefusedError: No event can hold the value.
            EventTooLargeError: The JSON is over 1 MiB.
        """
        if self._payloads is not None or isinstance(value, (bytes, bytearray, memoryview, Payload)):
            written = payload_json(self._payload(value))
        else:
            try:
                written = DATA, self._json(value)
            except _UNWRITABLE as error:
                written = payload_json(self._by_temporal(value, error))
        return _checked(written)

    def _json(self, value: Any) -> bytes:
        try:
            return self._encode(value)
        except ValueError as error:
            if not has_half(error):
                raise
        return self._encode(presentable(value))

    async def _coded(self, value: Any) -> Written:
        assert self._codec is not None
        payload = self._payload(value)
        began, backoff = time.monotonic(), Backoff()
        while True:
            try:
                (coded,) = await self._codec.encode([payload])
            except Exception as error:
                # Retry, since a codec may fetch keys over the network; but not for a value that it rejects.
                if isinstance(error, (TypeError, ValueError)) or time.monotonic() - began >= self._codec_retry:
                    said = f"expected a value that the payload codec accepts, it raised {error!r}"
                    raise ValueRefusedError(said) from error
                self._outage.failed(repr(error), began)
                await backoff.wait()
            else:
                self._outage.over()
                return _checked(payload_json(coded))

    def _payload(self, value: Any) -> Payload:
        if isinstance(value, Payload):
            return value
        if isinstance(value, (bytearray, memoryview)):
            value = bytes(value)
        if isinstance(value, bytes) and self._payloads is None:
            return Payload(metadata={"encoding": b"binary/plain"}, data=value)
        if self._payloads is None:
            try:
                return Payload(metadata={"encoding": b"json/plain"}, data=self._json(value))
            except _UNWRITABLE as error:
                return self._by_temporal(value, error)
        try:
            return converted(self._payloads.to_payload, value)
        except Exception as error:
            raise _refused(value, error) from error

    def _by_temporal(self, value: Any, error: Exception) -> Payload:
        """Convert a value that msgspec rejects, such as a protobuf message, with Temporal's default."""
        if self._default is None:
            self._default = DefaultPayloadConverter()
        try:
            return self._default.to_payload(value)
        except Exception:  # noqa: BLE001  msgspec's error describes the problem better
            raise _refused(value, error) from error


def payload_json(payload: Payload) -> Written:
    """Return a payload as an event's field: JSON as data, everything else as a payload."""
    data = json_of(payload)
    return (PAYLOAD, msgspec.json.encode(as_json(payload))) if data is None else (DATA, data)


def _is_default(payloads: PayloadConverter) -> bool:
    # In an activity, Temporal wraps the converter.
    return type(getattr(payloads, "_inner_payload_converter", payloads)) is DefaultPayloadConverter


def _written_by_itself(value: Any) -> Any:
    """Return the JSON of a pydantic model or of another object with `model_dump_json`."""
    dump = getattr(value, "model_dump_json", None)
    if dump is None:
        raise TypeError(f"{type(value).__name__} cannot be represented in JSON")
    return msgspec.Raw(dump().encode())


def _checked(written: Written) -> Written:
    if b"\n" in written[1] or b"\r" in written[1]:  # line breaks between tokens; a frame is one line
        written = written[0], msgspec.json.format(written[1], indent=-1)
    if nests_too_deep(written[1]):
        raise ValueRefusedError(
            f"expected at most {MAX_DEPTH} levels of nested lists and objects, got more",
            hint="Flatten the value, or publish it as a string of JSON.",
        )
    size = len(written[1])
    if size > MAX_EVENT_BYTES:
        raise EventTooLargeError(
            f"expected at most {MAX_EVENT_BYTES} bytes of data, got {size}",
            hint="Keep large values elsewhere and publish a reference. A SessionPublisher sends no more, whatever the "
            "gateway's max_event_bytes is.",
        )
    return written


def _refused(value: Any, error: Exception) -> ValueRefusedError:
    return ValueRefusedError(f"expected a value that can be written as JSON, got {type(value).__name__}: {said(error)}")
