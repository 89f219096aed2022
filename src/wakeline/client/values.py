"""Data in and out: JSON as typed values, Temporal payloads by the user's own data converter."""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING, Any

import msgspec

from wakeline.client.errors import EventDataError
from wakeline.client.structs import SessionEvent
from wakeline.client.view import WireEvent
from wakeline.errors import BodyInvalidError

if TYPE_CHECKING:
    from temporalio.converter import DataConverter

encode = msgspec.json.encode
_plain = msgspec.json.Decoder(Any)
_payload = msgspec.json.Decoder(dict[str, Any])


def encode_events(events: list[dict[str, Any]]) -> bytes:
    """A batch as a request's body.

    Raises:
        BodyInvalidError: Something in it is not what JSON can say.
    """
    try:
        return encode({"events": events})
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise BodyInvalidError(f"expected data that can be written as JSON: {error}") from error


class Values:
    """Reads the data of one kind of reading.

    Args:
        type: What publishers' data is read as; None reads plain JSON. Wakeline's own topics (`$…`) are always plain JSON.
        converter: Decodes Temporal payloads; None leaves them as they came.
    """

    def __init__(self, type: Any = None, converter: DataConverter | None = None) -> None:
        self._type = type
        self._typed = _plain if type is None else msgspec.json.Decoder(type)
        self._converter = converter

    async def event(self, wire: WireEvent, cursor: str, raw: bytes) -> SessionEvent[Any]:
        """The event as it is handed out.

        Raises:
            EventDataError: Its data does not fit the type, or its payload cannot be decoded.
        """
        try:
            if wire.payload is None:
                data = (_plain if wire.topic.startswith("$") else self._typed).decode(wire.data)
            else:
                data = await self._decoded(wire.payload)
        except Exception as error:  # a converter, or a constructor of the type, may raise anything
            wanted = "JSON" if self._type is None else getattr(self._type, "__name__", repr(self._type))
            raise EventDataError(
                f"expected data of topic {wire.topic!r} at offset {wire.offset} to be {wanted}: {error}",
                _event(wire, _anything(wire), cursor, raw),
            ) from error
        return _event(wire, data, cursor, raw)

    async def _decoded(self, payload: dict[str, Any]) -> Any:
        if self._converter is None:
            if self._type is None:
                return None
            raise ValueError("it is a Temporal payload, and the client was given no data_converter")
        from temporalio.api.common.v1 import Payload  # importing it takes a while, and few need it

        metadata = {key: b64decode(value) for key, value in payload.get("metadata", {}).items()}
        hints = None if self._type is None else [self._type]
        whole = Payload(metadata=metadata, data=b64decode(payload.get("data", "")))
        (value,) = await self._converter.decode([whole], hints)
        return value


def _anything(wire: WireEvent) -> Any:
    try:
        return _plain.decode(wire.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _event(wire: WireEvent, data: Any, cursor: str, raw: bytes) -> SessionEvent[Any]:
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
