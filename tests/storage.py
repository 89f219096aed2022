"""A data converter that keeps long payloads in external storage: in this process."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    DataConverter,
    ExternalStorage,
    StorageDriver,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
)


class InMemory(StorageDriver):
    """Keeps payloads in this process."""

    def __init__(self) -> None:
        self.kept = dict[str, bytes]()

    def name(self) -> str:
        return "memory"

    async def store(self, context: StorageDriverStoreContext, payloads: Sequence[Payload]) -> list[StorageDriverClaim]:
        keys = [uuid.uuid4().hex for _ in payloads]
        # The SDK replaces the payloads themselves by references.
        self.kept.update({key: payload.SerializeToString() for key, payload in zip(keys, payloads, strict=True)})
        return [StorageDriverClaim({"key": key}) for key in keys]

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        return [Payload.FromString(self.kept[claim.claim_data["key"]]) for claim in claims]


STORING = DataConverter(external_storage=ExternalStorage(drivers=[InMemory()], payload_size_threshold=1000))
