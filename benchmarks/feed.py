"""`python -m benchmarks.feed`: what connections of the feed cost in memory, and what an event costs to deliver on them."""

from __future__ import annotations

import argparse
import json
import resource
import selectors
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import SERVER_CORE, Process, cpu_seconds

_UPGRADE = (
    b"GET /v1/feed HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_STREAM = "GET {} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
_FEW = 200
"""Connections that are opened first: they make what all share, such as buffers, code and caches."""


@contextmanager
def gateway(folder: Path) -> Iterator[Process]:
    arguments = ["--no-auth", "--port", "0", "--data", str(folder / "data")]
    server = Process([sys.executable, "-m", "wakeline", "serve", *arguments], SERVER_CORE, folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def publish(port: int, session: str) -> None:
    body = json.dumps({"events": [{"topic": "t", "data": "x" * 150}]}).encode()
    url = f"http://127.0.0.1:{port}/v1/sessions/{session}/events"
    urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"}), timeout=20).close()


def subscribe(session: str) -> bytes:
    """A masked text frame; the mask is of zeros."""
    payload = b'{"type":"subscribe","session":"%b","from":"now"}' % session.encode()
    return bytes((0x81, 0x80 | len(payload))) + b"\0\0\0\0" + payload


def connect(port: int, form: str, sessions: int) -> socket.socket:
    """One connection, idle and live at the end of its sessions."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    names = [f"s{n}" for n in range(sessions)]
    if form == "websocket":
        connection.sendall(_UPGRADE)
        receive(connection, b'"ready"', 1)
        connection.sendall(b"".join(map(subscribe, names)))
        receive(connection, b'"subscribed"', sessions)
    elif form == "feed as SSE":
        connection.sendall(
            _STREAM.format("/v1/feed?from=now&" + "&".join(f"session={name}" for name in names)).encode()
        )
        receive(connection, b"id: ", 1)
    else:
        connection.sendall(_STREAM.format("/v1/sessions/s0/events?from=now").encode())
        receive(connection, b"id: ", 1)
    return connection


def receive(connection: socket.socket, mark: bytes, count: int) -> None:
    got = b""
    while got.count(mark) < count:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError(f"expected {mark!r}, the gateway closed after {got[-300:]!r}")
        got += piece


def resident(pid: int) -> int:
    """Bytes of memory that a process has of its own."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("expected Pss in smaps_rollup")


def memory(form: str, sessions: int, count: int, folder: Path) -> None:
    with gateway(folder) as server:
        for n in range(max(1, sessions)):
            publish(server.port, f"s{n}")
        connections = [connect(server.port, form, sessions) for _ in range(_FEW)]
        time.sleep(1)
        before = resident(server.pid)
        connections += [connect(server.port, form, sessions) for _ in range(count)]
        time.sleep(2)
        each = (resident(server.pid) - before) / count / 1024
        print(f"{form:<14} {sessions:>4} sessions, {count} idle connections: {each:6.1f} KB each", flush=True)
        for connection in connections:
            connection.close()


def delivery(form: str, count: int, events: int, folder: Path) -> None:
    """CPU of the gateway for each event and connection: an event is published when the last one has come to all."""
    with gateway(folder) as server, selectors.DefaultSelector() as selector:
        publish(server.port, "s0")
        for _ in range(count):
            connection = connect(server.port, form, 1)
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ)
        cpu, began = cpu_seconds(server.pid), time.monotonic()
        for _ in range(events):
            publish(server.port, "s0")
            missing = count
            while missing:
                ready = selector.select(timeout=20)
                if not ready:
                    raise ConnectionError(f"expected an event on {missing} more connections, none came in 20 s")
                for key, _ in ready:
                    missing -= key.fileobj.recv(65536).count(b'"offset":')  # type: ignore[union-attr]
        used, seconds = cpu_seconds(server.pid) - cpu, time.monotonic() - began
        each = used / events / count * 1e6
        print(
            f"{form:<14} {count} connections: {each:5.2f} µs of CPU a delivery ({events / seconds:.0f} events/s)",
            flush=True,
        )
        for key in list(selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.feed", description=__doc__)
    parser.add_argument("--connections", type=int, default=3000, help="idle ones, for memory")
    parser.add_argument("--events", type=int, default=300, help="for the price of a delivery")
    parser.add_argument("--only", choices=["memory", "delivery"])
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if arguments.only != "delivery":
        for form, sessions in (
            ("websocket", 0),
            ("websocket", 1),
            ("websocket", 10),
            ("feed as SSE", 1),
            ("feed as SSE", 10),
        ):
            with tempfile.TemporaryDirectory(prefix="wakeline-feed-") as folder:
                memory(form, sessions, arguments.connections, Path(folder))
    if arguments.only != "memory":
        for form in ("SSE", "websocket", "feed as SSE"):
            with tempfile.TemporaryDirectory(prefix="wakeline-feed-") as folder:
                delivery(form, 1000, arguments.events, Path(folder))


if __name__ == "__main__":
    main()
