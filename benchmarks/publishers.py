"""How an event gets into each system. All are driven by the one loop of `load.py` and never block it."""

from __future__ import annotations

import os
import re
import select
import socket
from collections import deque
from typing import IO, Protocol

EVENT_BYTES = 200
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def data_of(time: int, number: int) -> bytes:
    """What one event says: when it was published, which one it is, and padding up to 200 bytes."""
    head = b'{"t":%d,"n":%d,"pad":"' % (time, number)
    return head + b"." * (EVENT_BYTES - 2 - len(head)) + b'"}'


def event_of(time: int, number: int) -> bytes:
    """The event as Wakeline shows it; systems that have no offsets of their own get the publisher's number."""
    return b'{"offset":%d,"topic":"delta","data":%b}' % (number, data_of(time, number))


class Publisher(Protocol):
    """Sends events; says how many of them it holds or has not seen acknowledged."""

    in_flight: int

    def attach(self, poll: select.epoll) -> None: ...

    def publish(self, time: int, number: int) -> None: ...

    def readable(self, fd: int) -> None: ...

    def close(self) -> None: ...


class HttpPublisher:
    """Posts each event on its own, on a few keep-alive connections; an event waits while all of them are busy."""

    def __init__(self, port: int, path: str, connections: int = 8) -> None:
        self.in_flight = 0
        self.refused = 0
        self._sockets = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(connections)]
        self._by_fd = {connection.fileno(): connection for connection in self._sockets}
        self._idle = list(self._sockets)
        self._waiting: deque[bytes] = deque()
        self._answers = dict.fromkeys(self._by_fd, b"")
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        self._head = head.encode() + b"Content-Length: %d\r\n\r\n%b"

    def attach(self, poll: select.epoll) -> None:
        for connection in self._sockets:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            poll.register(connection, select.EPOLLIN)

    def publish(self, time: int, number: int) -> None:
        body = b'{"events":[{"topic":"delta","data":%b}]}' % data_of(time, number)
        self.in_flight += 1
        self._waiting.append(self._head % (len(body), body))
        self._send()

    def _send(self) -> None:
        while self._idle and self._waiting:
            self._idle.pop().sendall(self._waiting.popleft())

    def readable(self, fd: int) -> None:
        received = self._by_fd[fd].recv(65536)
        if not received:
            raise ConnectionError("the server closed a publisher's connection")
        answer = self._answers[fd] + received
        head, separator, body = answer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not separator or (length is not None and len(body) < int(length[1])):
            self._answers[fd] = answer
            return
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"expected 200 for a publish, got {answer[:300]!r}")
        self._answers[fd] = b""
        self.in_flight -= 1
        self._idle.append(self._by_fd[fd])
        self._send()

    def close(self) -> None:
        for connection in self._sockets:
            connection.close()


class RedisPublisher:
    """PUBLISH on one connection; Redis answers with the number of subscribers that it was handed to."""

    def __init__(self, port: int, channel: bytes) -> None:
        self.in_flight = 0
        self._socket = socket.create_connection(("127.0.0.1", port), 5)
        self._head = b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n" % (len(channel), channel)

    def attach(self, poll: select.epoll) -> None:
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(self._socket, select.EPOLLIN)

    def publish(self, time: int, number: int) -> None:
        event = event_of(time, number)
        self.in_flight += 1
        self._socket.sendall(self._head + b"$%d\r\n%b\r\n" % (len(event), event))

    def readable(self, fd: int) -> None:
        received = self._socket.recv(65536)
        if not received or b"-ERR" in received:
            raise ConnectionError(f"expected an answer to PUBLISH, got {received!r}")
        self.in_flight -= received.count(b"\n")

    def close(self) -> None:
        self._socket.close()


class PipePublisher:
    """Writes events to the standard input of the send loop, one a line; there is nothing to wait for."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self.in_flight = 0
        self._fd = pipe.fileno()

    def attach(self, poll: select.epoll) -> None:
        """A pipe that is only written to needs no watching."""

    def publish(self, time: int, number: int) -> None:
        os.write(self._fd, event_of(time, number) + b"\n")

    def readable(self, fd: int) -> None:
        raise AssertionError("nothing is read from the send loop")

    def close(self) -> None:
        """The pipe belongs to the process."""
