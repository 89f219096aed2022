"""`python -m benchmarks.memory`: what an idle connection costs the gateway in memory."""

from __future__ import annotations

import argparse
import json
import resource
import socket
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from benchmarks.processes import SERVER_CORE, Process

_SSE = b"GET /v1/sessions/s/events?from=now HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
_FEED = (
    b"GET /v1/feed HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_SUBSCRIBE = b'{"type":"subscribe","session":"s","from":"now"}'
_READY = {"SSE": b"id: ", "WebSocket": b'"subscribed"'}


def resident(pid: int) -> int:
    """Bytes of memory that a process has of its own."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("expected Pss in smaps_rollup")


def connect(port: int, kind: str) -> socket.socket:
    """One idle device, live at the session's end."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    if kind == "SSE":
        connection.sendall(_SSE)
    else:
        connection.sendall(_FEED)
        receive(connection, b"\r\n\r\n")
        mask = b"\0\0\0\0"
        connection.sendall(bytes([0x81, 0x80 | len(_SUBSCRIBE)]) + mask + _SUBSCRIBE)
    receive(connection, _READY[kind])
    return connection


def receive(connection: socket.socket, wanted: bytes) -> None:
    """Read until something has come."""
    got = b""
    while wanted not in got:
        piece = connection.recv(4096)
        if not piece:
            raise ConnectionError(f"expected {wanted!r}, the gateway closed after {got[-300:]!r}")
        got += piece


def measure(kind: str, count: int, folder: Path) -> None:
    """Open connections in steps, and say what each has cost."""
    command = [sys.executable, "-m", "wakeline", "serve", "--no-auth", "--port", "0", "--data", str(folder / kind)]
    server = Process(command, SERVER_CORE, folder)
    server.start()
    try:
        body = json.dumps({"events": [{"topic": "t", "data": 1}]}).encode()
        url = f"http://127.0.0.1:{server.port}/v1/sessions/s/events"
        urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"})).close()
        # The first connections make what all of them share: buffers, code, caches.
        connections = [connect(server.port, kind) for _ in range(200)]
        time.sleep(1)
        before = resident(server.pid)
        connections += [connect(server.port, kind) for _ in range(count)]
        time.sleep(2)
        grown = resident(server.pid) - before
        print(f"{kind:<10} {count:>6} idle connections: {grown / count / 1024:.1f} KB each", flush=True)
        for connection in connections:
            connection.close()
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--only", nargs="*", default=list(_READY), help=" ".join(_READY))
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="wakeline-memory-") as folder:
        for kind in arguments.only:
            measure(kind, arguments.connections, Path(folder))


if __name__ == "__main__":
    main()
