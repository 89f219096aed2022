"""The devices of `benchmarks.publishing`: a process that reads many streams on raw sockets and tells how late they were.

It connects, prints `ready`, reads until a line comes on its standard input, and prints what it saw as JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import select
import socket
import sys
import time
from array import array

EVENT = re.compile(rb'"t":(\d+),"n":(\d+)')


class Device:
    """One connection: what it has got, and what it has missed."""

    def __init__(self, port: int, path: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n\r\n"
        self.socket.sendall(head.encode())
        self.tail = b""
        self.next = 0
        self.received = self.breaks = 0

    def wait_for_head(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            received = self.socket.recv(65536)
            if not received or not b"HTTP/1.1 200".startswith(received[:12]):
                sys.exit(f"expected an event stream, got {(head + received)[:200]!r}")
            head += received
        self.socket.setblocking(False)

    def take(self, late: array[float]) -> None:
        data = self.tail + self.socket.recv(1 << 18)
        now = time.monotonic_ns()
        end = 0
        for found in EVENT.finditer(data):
            if found.end() == len(data):
                break  # the number may go on
            number, end = int(found[2]), found.end()
            self.received += 1
            self.breaks += number != self.next
            self.next = number + 1
            late.append((now - int(found[1])) / 1e6)
        self.tail = data[end:][-200:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("path", help="with {} for the number of the stream")
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--devices", type=int, default=1, help="of each stream")
    asked = parser.parse_args()
    poll = select.epoll()
    devices: dict[int, Device] = {}
    for stream in range(asked.streams):
        group = [Device(asked.port, asked.path.format(stream)) for _ in range(asked.devices)]
        for device in group:
            device.wait_for_head()
            devices[device.socket.fileno()] = device
            poll.register(device.socket, select.EPOLLIN)
    poll.register(sys.stdin, select.EPOLLIN)
    print("ready", flush=True)
    late: array[float] = array("f")
    while True:
        for number, _ in poll.poll(1.0, 64):
            if number == sys.stdin.fileno():
                received = [device.received for device in devices.values()]
                told = {
                    "fewest": min(received),
                    "received": sum(received),
                    "breaks": sum(device.breaks for device in devices.values()),
                    "late": summary(late),
                }
                print(json.dumps(told), flush=True)
                return
            devices[number].take(late)


def summary(late: array[float]) -> dict[str, float]:
    """Milliseconds."""
    ordered = sorted(late)
    if not ordered:
        return {}
    return {f"p{part}": ordered[min(len(ordered) * part // 100, len(ordered) - 1)] for part in (50, 95, 99)}


if __name__ == "__main__":
    main()
