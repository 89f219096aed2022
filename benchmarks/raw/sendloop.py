"""The same loop as `sendloop.c`, in Python."""

from __future__ import annotations

import socket
import sys

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def main(count: int) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    devices: list[socket.socket] = []
    for _ in range(count):
        device, _ = listener.accept()
        device.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        device.sendall(HEAD)
        device.setblocking(False)
        devices.append(device)
    for line in sys.stdin.buffer:
        frame = b"data: " + line + b"\n"
        for device in devices:
            device.send(frame)


if __name__ == "__main__":
    main(int(sys.argv[1]))
