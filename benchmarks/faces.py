"""`python -m benchmarks.faces`: what devices on one chat cost through the AI SDK's face, AG-UI's, and without a face.

A workflow runs, and a program publishes the tokens of its answer. The next token is published when all devices have the last
one. So a latency is that of a gateway with one token under way, and it grows with the devices before the one that is written to.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import selectors
import socket
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from benchmarks.feed import receive
from benchmarks.following import QUEUE, percentiles, temporal
from benchmarks.following_workflows import Idle
from benchmarks.processes import SERVER_CORE, Process, cpu_seconds

_GET = "GET {} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
_END = "~"
"""Ends each token, so that tokens can be counted in the bytes of every protocol."""

FORMS = {
    "events as SSE": "/v1/sessions/{}/events",
    "AI SDK": "/v1/ai/{}/stream",
    "AG-UI": "/v1/ag-ui/{}",
}


def publish(port: int, session: str, token: str) -> None:
    event = {"topic": "answer", "message": {"id": "m", "op": "text"}, "data": token + _END}
    body = json.dumps({"events": [event]}).encode()
    url = f"http://127.0.0.1:{port}/v1/sessions/{session}/events"
    urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"}), timeout=60).close()


def connect(port: int, path: str, mark: bytes = _END.encode()) -> socket.socket:
    """A device that has read the mark: the end of what the answer says so far."""
    device = socket.create_connection(("127.0.0.1", port), timeout=60)
    device.sendall(_GET.format(path).encode())
    receive(device, mark, 1)
    return device


def measured(server: Process, form: str, session: str, count: int, tokens: int) -> str:
    """Publish tokens to so many devices; return what that took."""
    path = FORMS[form].format(session)
    connect(server.port, FORMS["events as SSE"].format(session), b"$run.started").close()
    publish(server.port, session, "begun")
    devices = [connect(server.port, path) for _ in range(count)]
    delays: list[float] = []
    with selectors.DefaultSelector() as selector:
        for device in devices:
            device.setblocking(False)
            selector.register(device, selectors.EVENT_READ)
        cpu = cpu_seconds(server.pid)
        for number in range(tokens):
            began, missing = time.monotonic(), count
            publish(server.port, session, f"token {number}")
            while missing:
                ready = selector.select(timeout=60)
                if not ready:
                    raise ConnectionError(f"expected a token on {missing} more devices, none came in 60 s")
                for key, _ in ready:
                    found = key.fileobj.recv(65536).count(_END.encode())  # type: ignore[union-attr]
                    missing -= found
                    delays += [time.monotonic() - began] * found
        price = (cpu_seconds(server.pid) - cpu) / tokens / count * 1e6
    for device in devices:
        device.close()
    return f"{form:<14} {count:>5} devices: {percentiles(delays)}   {price:6.1f} µs of CPU a delivery"


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faces", description=__doc__)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--tokens", type=int, default=200)
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    async with temporal() as client:
        address = client.service_client.config.target_host
        with tempfile.TemporaryDirectory(prefix="wakeline-faces-") as folder:
            options = ["--no-auth", "--port", "0", "--data", f"{folder}/data", "--temporal", address]
            server = Process([sys.executable, "-m", "wakeline", "serve", *options], SERVER_CORE, Path(folder))
            server.start()
            try:
                for count in arguments.devices:
                    for number, form in enumerate(FORMS):
                        session = f"chat-{count}-{number}"
                        await client.start_workflow(Idle.run, False, id=session, task_queue=QUEUE)
                        print(await asyncio.to_thread(measured, server, form, session, count, arguments.tokens))
            finally:
                server.stop()


if __name__ == "__main__":
    asyncio.run(main())
