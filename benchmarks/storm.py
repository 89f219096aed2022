"""`python -m benchmarks.storm`: all devices of a session come back at once, each a thousand events behind."""

from __future__ import annotations

import argparse
import json
import resource
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import LOAD_CORE, SERVER_CORE, Process, cpu_seconds, on_cores

PEERS = Path(__file__).parent / "peers"
_LAST = b'"last":true'


@dataclass(frozen=True)
class Peer:
    """A server, and how to fill and read one session of it."""

    title: str
    command: Callable[[Path], list[str]]
    path: str
    read: str
    create: bool

    def fill(self, port: int, events: int) -> None:
        """Store the events, a hundred to a request."""
        url = f"http://127.0.0.1:{port}{self.path}"
        headers = {"Content-Type": "application/json"}
        if self.create:
            urllib.request.urlopen(urllib.request.Request(url, headers=headers, method="PUT")).close()
        for first in range(0, events, 100):
            values = [
                {"n": n, "text": "x" * 150, "last": n == events - 1} for n in range(first, min(first + 100, events))
            ]
            body = values if self.create else {"events": [{"topic": "delta", "data": value} for value in values]}
            urllib.request.urlopen(urllib.request.Request(url, compact(body), headers)).close()


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def node(folder: Path | None) -> list[str]:
    return ["node", str(PEERS / "durable_streams.mjs"), *([str(folder / "store")] if folder else [])]


def wakeline(folder: Path) -> list[str]:
    return [sys.executable, "-m", "wakeline", "serve", "--no-auth", "--port", "0", "--data", str(folder / "data")]


_STREAM = "/v1/stream/s"
PEERS_BY_KEY = {
    "wakeline": Peer("Wakeline (SQLite, durable)", wakeline, "/v1/sessions/s/events", "?from=beginning", False),
    "file": Peer("@durable-streams/server, files", node, _STREAM, "?offset=-1&live=sse", True),
    "memory": Peer("@durable-streams/server, memory", lambda _: node(None), _STREAM, "?offset=-1&live=sse", True),
}


def storm(port: int, request: bytes, devices: int, limit: float) -> list[float]:
    """Seconds from the storm's begin until each device has read the last event; those that never do are left out."""
    connections: dict[int, socket.socket] = {}
    for _ in range(devices):
        connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        connections[connection.fileno()] = connection
    poll = select.epoll()
    tails: dict[int, bytes] = {}
    sizes: dict[int, int] = {}
    finished: list[float] = []
    began = time.monotonic()
    for file, connection in connections.items():
        connection.sendall(request)
        connection.setblocking(False)
        poll.register(file, select.EPOLLIN)
        tails[file], sizes[file] = b"", 0
    while len(finished) < devices and time.monotonic() - began < limit:
        for file, _ in poll.poll(1):
            try:
                piece = connections[file].recv(1 << 18)
            except BlockingIOError:
                continue
            sizes[file] += len(piece)
            seen = tails[file] + piece
            tails[file] = seen[-len(_LAST) :]
            if _LAST in seen or not piece:
                if piece:
                    finished.append(time.monotonic() - began)
                poll.unregister(file)
    poll.close()
    for connection in connections.values():
        connection.close()
    return finished


def measure(key: str, devices: int, events: int, title: str = "") -> None:
    """One storm against one freshly started server; the title is the server's by default."""
    peer = PEERS_BY_KEY[key]
    with tempfile.TemporaryDirectory(prefix="wakeline-storm-") as temporary:
        folder = Path(temporary)
        server = Process(peer.command(folder), SERVER_CORE, folder)
        server.start()
        try:
            peer.fill(server.port, events)
            request = (
                f"GET {peer.path}{peer.read} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
            ).encode()
            before = cpu_seconds(server.pid)
            with on_cores(LOAD_CORE):
                times = storm(server.port, request, devices, 120)
            cpu = cpu_seconds(server.pid) - before
        finally:
            server.stop()
    title = title or peer.title
    if not times:
        print(f"{title:<34} no device had everything in 120 s", flush=True)
        return
    per_second = len(times) * events / max(times)
    print(
        f"{title:<34} {len(times):>5} of {devices} caught up; median {statistics.median(times):6.2f} s, "
        f"last {max(times):6.2f} s, {per_second / 1000:6.0f} k events/s, {cpu:5.2f} CPU-s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storm", description=__doc__)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(PEERS_BY_KEY), help=" ".join(PEERS_BY_KEY))
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    keys = [key for key in arguments.only if key == "wakeline" or shutil.which("node")]
    if keys != ["wakeline"]:
        command = ["npm", "install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        subprocess.run(command, cwd=PEERS, check=True)
    for number in range(arguments.rounds):
        print(
            f"round {number + 1}: {arguments.devices} devices, {arguments.events} events of some 200 bytes", flush=True
        )
        for key in keys:
            measure(key, arguments.devices, arguments.events)


if __name__ == "__main__":
    main()
