"""A data converter whose codec decodes for the activity alone that it has encoded for."""

from __future__ import annotations

from collections.abc import Sequence

from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    ActivitySerializationContext,
    DataConverter,
    PayloadCodec,
    SerializationContext,
    WithSerializationContext,
)


class OfActivity(PayloadCodec, WithSerializationContext):
    """Encodes payloads with the namespace and the id of an activity as the key."""

    def __init__(self, key: str = "") -> None:
        self.key = key.encode()

    def with_context(self, context: SerializationContext) -> OfActivity:
        if isinstance(context, ActivitySerializationContext):
            return OfActivity(f"{context.namespace}/{context.activity_id}")
        return self

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        encoded = [
            (payload.SerializeToString(), {"encoding": b"for an activity", "key": self.key}) for payload in payloads
        ]
        return [Payload(metadata=metadata, data=data) for data, metadata in encoded]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        for payload in payloads:
            if payload.metadata["key"] != self.key or not self.key:
                raise ValueError(f"expected the key {payload.metadata['key']!r}, got {self.key!r}")
        return [Payload.FromString(payload.data) for payload in payloads]


CONTEXTUAL = DataConverter(payload_codec=OfActivity())
