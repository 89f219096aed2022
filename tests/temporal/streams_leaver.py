"""A program that reads the first event of a stream many times over, and ends without a word of farewell."""

from __future__ import annotations

import asyncio
import sys

from temporalio.client import Client

from wakeline.streams import WorkflowStreamClient


async def main(address: str, workflow_id: str, readers: str) -> None:
    client = await Client.connect(address)
    items = []
    for _ in range(int(readers)):
        # Those that share a client ask together.
        own = Client(client.service_client, namespace=client.namespace)
        items.append(WorkflowStreamClient.create(own, workflow_id).subscribe())
    print([item.data for item in await asyncio.gather(*map(anext, items))])


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
