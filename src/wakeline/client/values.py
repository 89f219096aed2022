"""Encodes and decodes event data: JSON by msgspec, payloads by the user's data converter."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from wakeline.client.errors import EventDataError
from wakeline.client.structs import SessionEvent
from wakeline.client.view import WireEvent
from wakeline.errors import BodyInvalidError, UnavailableError
from wakeline.events import RUN_CLOSED
from wakeline.presentable import converted

if TYPE_CHECKING:
    from temporalio.api.common.v1 import Payload
    from temporalio.converter import DataConverter

Arrived: TypeAlias = tuple[WireEvent, str, bytes]
"""An event, the cursor after it, and its JSON object."""

encode = msgspec.json.encode
_plain = msgspec.json.Decoder(Any)
_payload = msgspec.json.Decoder(dict[str, Any])


def encode_events(events: list[dict[str, Any]]) -> bytes:
    """Return a batch as the body of a request.

    Raises:
        BodyInvalidError: A value in it cannot be represented in JSON.
    """
    try:
        return converted(encode, {"events": events})
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise BodyInvalidError(f"expected data that can be written as JSON: {error}") from error


class Values:
    """Decodes the data of events as one type.

    Args:
        type: The type of publishers' data; None is plain JSON. Wakeline's own topics (`$…`) are always plain JSON.
        converter: Decodes Temporal payloads; None leaves them unchanged.
    """

    def __init__(self, type: Any = None, converter: DataConverter | None = None) -> None:
        self._type = type
        self._typed = _plain if type is None else msgspec.json.Decoder(type)
        self._converter = converter

    async def events(self, arrived: Sequence[Arrived]) -> list[SessionEvent[Any] | EventDataError]:
        """Return each event decoded, or its error; the codec is called once for all of them."""
        payloads = [event.payload for event, _, _ in arrived if event.payload is not None]
        decoded = iter(await self._decoded(payloads) if payloads else ())
        return [
            await self._event(wire, cursor, raw, next(decoded) if wire.payload is not None else None)
            for wire, cursor, raw in arrived
        ]

    async def _event(
        self, wire: WireEvent, cursor: str, raw: bytes, payload: Payload | Exception | None
    ) -> SessionEvent[Any] | EventDataError:
        try:
            if wire.payload is not None:
                data = self._value(payload)
            elif wire.topic == RUN_CLOSED:
                data = await self._end(_plain.decode(wire.data))
            else:
                data = (_plain if wire.topic.startswith("$") else self._typed).decode(wire.data)
        except Exception as error:  # noqa: BLE001  a converter, or a constructor of the type, may raise anything
            wanted = "JSON" if self._type is None else getattr(self._type, "__name__", repr(self._type))
            failed = EventDataError(
                f"expected data of topic {wire.topic!r} at offset {wire.offset} to be {wanted}: {error}",
                session_event(wire, _anything(wire), cursor, raw),
            )
            failed.__cause__ = error
            return failed
        return session_event(wire, data, cursor, raw)

    def _value(self, payload: Payload | Exception | None) -> Any:
        if isinstance(payload, Exception):
            raise payload
        if payload is None or self._converter is None:
            if self._type is None:
                return None
            raise ValueError("it is a Temporal payload, and the client was given no data_converter")
        hints = None if self._type is None else [self._type]
        (value,) = self._converter.payload_converter.from_payloads([payload], hints)
        return value

    async def _decoded(self, wires: list[dict[str, Any]]) -> list[Payload | Exception | None]:
        """Return each payload as the codec decodes it, or the codec's error."""
        if self._converter is None:
            return [None] * len(wires)
        from wakeline.client.codec import read_payload  # slow to import, and few programs need it

        try:
            payloads = [read_payload(wire) for wire in wires]
            codec = self._converter.payload_codec
            decoded = payloads if codec is None else await codec.decode(payloads)
            if len(decoded) == len(payloads):
                return list(decoded)
            error: Exception = ValueError(f"expected {len(payloads)} payloads from the codec, got {len(decoded)}")
        except Exception as failed:  # noqa: BLE001  as above
            error = failed
        if len(wires) == 1 or isinstance(error, UnavailableError):
            return [error] * len(wires)
        return [(await self._decoded([wire]))[0] for wire in wires]  # one by one, to find the bad one

    async def _end(self, data: Any) -> Any:
        """Decode the encoded parts of a run's end, as far as the codec can."""
        if self._converter is None or not isinstance(data, dict):
            return data
        if isinstance(payload := data.get("result_payload"), dict):
            (found,) = await self._decoded([payload])
            with suppress(Exception):
                data = {**data, "result": _untyped(self._converter, found)}
                del data["result_payload"]
        failure = data.get("failure")
        for key, encoded in (("message", "encoded_attributes"), ("cause", "cause_encoded_attributes")):
            if isinstance(failure, dict) and isinstance(payload := failure.get(encoded), dict):
                (found,) = await self._decoded([payload])
                with suppress(Exception):
                    failure = {**failure, key: _untyped(self._converter, found)["message"]}
                    del failure[encoded]
        return data if failure is None else {**data, "failure": failure}


def _untyped(converter: DataConverter, payload: Payload | Exception | None) -> Any:
    if payload is None or isinstance(payload, Exception):
        raise ValueError("it is not decoded")
    (value,) = converter.payload_converter.from_payloads([payload])
    return value


def _anything(wire: WireEvent) -> Any:
    try:
        return _plain.decode(wire.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def session_event(wire: WireEvent, data: Any, cursor: str, raw: bytes) -> SessionEvent[Any]:
    """Return an event with its decoded data."""
    return SessionEvent(
        offset=wire.offset,
        topic=wire.topic,
        data=data,
        time=wire.time,
        cursor=cursor,
        raw=raw,
        payload=wire.payload,
        run=wire.run,
        activity=wire.activity,
        attempt=wire.attempt,
        key=wire.key,
        message=wire.message,
        compact=wire.compact,
    )
