"""A payload codec that keeps a stream's envelope readable for a gateway without the key."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec, SerializationContext, WithSerializationContext

from wakeline.streams.wire import decode_payload, encode_payload

# Marks a poll's answer whose items are encoded, while it is not; and whether the codec encoded them all at once.
MARK: Final = "wakeline-envelope"
_TOGETHER: Final = b"together"
_EACH: Final = b"each"
# The identity of an item that a publisher sent through the workflow, see PROTOCOL.md §3.
IDENTITY: Final = "wakeline"

_ANSWER: Final = {"items", "next_offset", "more_ready"}
_ITEM: Final = {"topic", "data", "offset"}
_QUESTION: Final = {"topics", "from_offset"}


class EnvelopeCodec(PayloadCodec, WithSerializationContext):
    """Applies your codec to each item of a stream, and to all other payloads as a whole.

        codec = EnvelopeCodec(EncryptionCodec(key))
        client = await Client.connect(…, data_converter=DataConverter(payload_codec=codec))

    Every worker and client of the namespace's streams needs it. In an answer to a reader of a stream, topics, offsets and
    sizes stay readable for Temporal and for the gateway, which passes the items on unchanged. Signals, inputs, results and
    all other payloads are encoded by your codec alone.

    A payload with the exact form of such an answer is treated as one, whoever made it.

    Args:
        codec: Your codec.
    """

    def __init__(self, codec: PayloadCodec) -> None:
        self._codec = codec

    def with_context(self, context: SerializationContext) -> EnvelopeCodec:
        """Return this codec around yours with the context, if yours accepts one."""
        if isinstance(self._codec, WithSerializationContext):
            return EnvelopeCodec(self._codec.with_context(context))
        return self

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encode payloads; in a stream's answer, each item."""
        answers = [_answer(payload) for payload in payloads]
        if not any(answers):
            return await self._codec.encode(payloads)
        encoded = []
        for payload, answer in zip(payloads, answers, strict=True):
            if answer is None:
                encoded += await self._codec.encode([payload])
            else:
                encoded.append(await self._with_items(payload, answer, encode=True))
        return encoded

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decode payloads; in a stream's answer, each item."""
        if not any(MARK in payload.metadata or _is_question(payload) for payload in payloads):
            return await self._codec.decode(payloads)
        decoded = []
        for payload in payloads:
            if MARK in payload.metadata:
                decoded.append(await self._with_items(payload, json.loads(payload.data), encode=False))
            elif _is_question(payload):
                decoded.append(payload)  # from a reader that has no key
            else:
                decoded += await self._codec.decode([payload])
        return decoded

    async def _with_items(self, payload: Payload, answer: dict[str, Any], *, encode: bool) -> Payload:
        items = [decode_payload(item["data"]) for item in answer["items"]]
        # An item that its publisher has encoded is not encoded again: it arrives as if it were sent directly.
        own = [index for index, item in enumerate(items) if not _is_encoded(item)]
        # The gateway reads and removes an item's identity, so the identity is not encoded.
        identities = [_taken(items[index].metadata, IDENTITY) for index in own]
        changed, how = await self._each(
            [items[index] for index in own], encode=encode, together=payload.metadata.get(MARK) != _EACH
        )
        for index, item, identity in zip(own, changed, identities, strict=True):
            items[index] = Payload(metadata=dict(item.metadata), data=item.data)
            if identity is not None:
                items[index].metadata[IDENTITY] = identity
        written = [each | {"data": encode_payload(item)} for each, item in zip(answer["items"], items, strict=True)]
        metadata = dict(payload.metadata)
        metadata.pop(MARK, None)
        if encode:
            metadata[MARK] = how
        data = json.dumps(answer | {"items": written}, separators=(",", ":"), sort_keys=True).encode()
        return Payload(metadata=metadata, data=data)

    async def _each(self, payloads: list[Payload], *, encode: bool, together: bool) -> tuple[Sequence[Payload], bytes]:
        """Apply the codec to the payloads: all at once, unless it returns another number of them."""
        change = self._codec.encode if encode else self._codec.decode
        if together:
            changed = await change(payloads) if payloads else []
            if len(changed) == len(payloads):
                return changed, _TOGETHER
        changed = [each for payload in payloads for each in await change([payload])]
        if len(changed) != len(payloads):
            raise ValueError(f"expected one payload for each of {len(payloads)} from the codec, got {len(changed)}")
        return changed, _EACH


def _taken(metadata: Any, key: str) -> bytes | None:
    """Remove a key from a protobuf map, whose own `pop` creates a missing key."""
    if key not in metadata:
        return None
    value: bytes = metadata[key]
    del metadata[key]
    return value


def _answer(payload: Payload) -> dict[str, Any] | None:
    """Return the content of a poll's answer; None if the payload is something else."""
    if not payload.data.startswith(b'{"items":['):  # most payloads need not be parsed
        return None
    found = _read(payload)
    if found is None or found.keys() != _ANSWER or not isinstance(found["items"], list):
        return None
    try:
        for item in found["items"]:
            if item.keys() != _ITEM:
                return None
            decode_payload(item["data"])
    except (AttributeError, TypeError, ValueError):
        return None
    return found


def _is_question(payload: Payload) -> bool:
    """Return whether a payload is a poll that was not encoded."""
    found = _read(payload) if b'"from_offset":' in payload.data[:200_000] else None
    return found is not None and found.keys() == _QUESTION


def _is_encoded(item: Payload) -> bool:
    if IDENTITY not in item.metadata:
        return False
    try:
        identity = json.loads(item.metadata[IDENTITY])
    except ValueError:
        return False
    return isinstance(identity, dict) and identity.get("encoded") is True


def _read(payload: Payload) -> dict[str, Any] | None:
    if payload.metadata.get("encoding") != b"json/plain":
        return None
    try:
        found = json.loads(payload.data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
