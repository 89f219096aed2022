"""Programs that connect a client with `WakelinePlugin` and end: `python -m tests.integrations.connects ADDRESS COUNT`.

They are forks of this one, so that they cost no start of Python; how each ended is printed.
"""

from __future__ import annotations

import asyncio
import os
import sys

from temporalio.client import Client

from wakeline.integrations.temporal import WakelinePlugin


async def main(address: str) -> None:
    await Client.connect(address, plugins=[WakelinePlugin("http://127.0.0.1:1")])


if __name__ == "__main__":
    children = []
    for _ in range(int(sys.argv[2])):
        if (child := os.fork()) == 0:
            asyncio.run(main(sys.argv[1]))
            sys.exit()
        children.append(child)
    print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
