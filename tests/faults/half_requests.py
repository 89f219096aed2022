"""A program that sends half requests, keeps them half with a byte now and then, and begins anew when it is cut.

Says `ready` when all are open, then how many were cut. Sockets by hand: who attacks does not pay for an event loop either.
"""

from __future__ import annotations

import select
import socket
import sys
import time

_HEAD = b"POST /v1/sessions/s/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HALVES = (_HEAD, _HEAD + b"Content-Length: 900\r\n\r\n{", b"", _HEAD + b"X-Long: " + b"x" * 4000)
"""A head, a body, nothing, a long head. A further byte keeps each but the third what it is."""
_BYTE_SECONDS = 5.0


class Half:
    """One connection with half a request."""

    def __init__(self, port: int, number: int) -> None:
        self.number = number
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(HALVES[number % len(HALVES)])
        self.socket.setblocking(False)
        self.next = time.monotonic() + _BYTE_SECONDS

    def one_more_byte(self) -> None:
        self.next += _BYTE_SECONDS
        if HALVES[self.number % len(HALVES)]:
            self.socket.send(b"x")


def main(port: int, count: int) -> None:
    halves: dict[int, Half] = {}
    poll = select.epoll()

    def begin(number: int) -> None:
        half = Half(port, number)
        halves[half.socket.fileno()] = half
        poll.register(half.socket.fileno(), select.EPOLLIN)

    for number in range(count):
        begin(number)
    print("ready", flush=True)
    cut, told = 0, time.monotonic()
    while True:
        for file, _ in poll.poll(0.05):
            poll.unregister(file)
            half = halves.pop(file)
            half.socket.close()
            begin(half.number)
            cut += 1
        now = time.monotonic()
        for half in [half for half in halves.values() if half.next < now]:
            try:
                half.one_more_byte()
            except OSError:
                continue  # it was cut; poll tells
        if now - told > 1:
            print(f"cut {cut}", flush=True)
            told = now


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
