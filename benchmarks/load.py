"""The load: one process, one thread, raw sockets. It publishes, plays every device, and checks what each one got."""

from __future__ import annotations

import gc
import re
import select
import socket
import struct
import time
from collections.abc import Callable

from benchmarks.phase import Phase
from benchmarks.processes import machine_cpu_seconds
from benchmarks.publishers import Publisher

EVENT = re.compile(rb'"offset":(\d+),"topic":"delta","data":{"t":(\d+),"n":(\d+)')
READS_A_TURN = 64  # so that a publish that is due never waits behind a thousand reads
DRAIN_SECONDS = 20.0
DATA_SEGMENTS_RECEIVED = 152  # where Linux keeps tcpi_data_segs_in in struct tcp_info


class LoadError(Exception):
    """A system did not do what it must do before it can be measured."""


class Device:
    """One connection that reads a stream of server-sent events."""

    __slots__ = ("breaks", "expected", "received", "socket", "tail")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 5)
        self.tail = b""
        self.expected = -1  # the offset that must come next; -1 before the first event
        self.received = 0
        self.breaks = 0

    def segments(self) -> int:
        """How many TCP segments with data have come: on loopback, as many as the server made writes."""
        info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, DATA_SEGMENTS_RECEIVED + 4)
        return int(struct.unpack_from("I", info, DATA_SEGMENTS_RECEIVED)[0])


class Load:
    """N devices and one publisher on one epoll loop."""

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self.devices: dict[int, Device] = {}
        self._poll = select.epoll()
        self._published = 0  # the number of the next event
        self._first = 0  # the number of the first event of this phase
        self._counts: list[int] = []  # how many devices got each event of this phase
        self._complete = 0  # how many events of this phase all devices got
        self._delivered = 0
        self._latencies: list[int] = []
        self._busy = 0
        publisher.attach(self._poll)

    def close(self) -> None:
        for device in self.devices.values():
            device.socket.close()
        self.publisher.close()
        self._poll.close()

    # Getting ready

    def publish_first(self) -> None:
        """Publishes one event before any device is there, which makes the session."""
        self._publish()
        self._turn_until(lambda: self.publisher.in_flight == 0, 10, "an answer to the first publish")

    def connect(self, count: int, port: int, request: bytes) -> None:
        """Attaches the devices, some at a time so that no listener's backlog overflows."""
        for start in range(0, count, 50):
            group = [Device(port) for _ in range(start, min(count, start + 50))]
            for device in group:
                device.socket.sendall(request)
            for device in group:
                head = b""
                while b"\r\n\r\n" not in head:
                    received = device.socket.recv(65536)
                    if not received:
                        raise LoadError(f"expected an event stream, got {head[:200]!r}")
                    head += received
                if not head.startswith(b"HTTP/1.1 200"):
                    raise LoadError(f"expected 200, got {head[:200]!r}")
                device.socket.setblocking(False)
                self.devices[device.socket.fileno()] = device
                self._poll.register(device.socket, select.EPOLLIN)

    def synchronise(self) -> None:
        """Publishes until every device has shown that it listens, and has caught up: from here on, all must get all."""
        deadline = time.monotonic() + 40
        while any(device.expected < 0 for device in self.devices.values()):
            if time.monotonic() > deadline:
                silent = sum(device.expected < 0 for device in self.devices.values())
                raise LoadError(f"{silent} of {len(self.devices)} devices got no event within 40 s")
            self._publish()
            self._turn_for(0.2)
        self._turn_until(self._level, DRAIN_SECONDS, "all devices at the same offset")
        for device in self.devices.values():
            device.breaks = 0

    def _level(self) -> bool:
        self._turn_for(0.3)
        return len({device.expected for device in self.devices.values()}) == 1 and self.publisher.in_flight == 0

    # Measuring

    def run(
        self,
        seconds: float,
        cpu: Callable[[], tuple[float, float]],
        *,
        rate: float | None = None,
        in_flight: int = 10_000,
        window: int | None = None,
    ) -> Phase:
        """Publishes for `seconds`, waits until all is delivered, and tells how it went.

        Args:
            seconds: How long to publish.
            cpu: Tells the CPU seconds used so far by the server, and by what stands beside it.
            rate: Events a second; without it, as fast as `window` allows.
            in_flight: The most publishes that may wait for their answers.
            window: The most events that some device may not have got yet.
        """
        self._first, self._counts, self._complete, self._delivered = self._published, [], 0, 0
        self._latencies, self._busy = [], 0
        breaks = sum(device.breaks for device in self.devices.values())
        segments = sum(device.segments() for device in self.devices.values())
        gc.collect()
        gc.disable()
        cpu_before, machine_before, own_before = cpu(), machine_cpu_seconds(), time.process_time()
        started = time.monotonic()
        self._pace(started + seconds, rate, in_flight, window)
        drained = self._drain()
        elapsed = time.monotonic() - started
        cpu_after, machine, own = cpu(), machine_cpu_seconds() - machine_before, time.process_time() - own_before
        gc.enable()
        published = self._published - self._first
        latencies = sorted(self._latencies)
        if not latencies:
            raise LoadError("no event was delivered")
        return Phase(
            seconds=drained - started,
            published=published,
            delivered=self._delivered,
            missing=sum(max(0, len(self.devices) - count) for count in self._counts),
            duplicates=sum(max(0, count - len(self.devices)) for count in self._counts),
            breaks=sum(device.breaks for device in self.devices.values()) - breaks,
            p50=latencies[len(latencies) // 2] / 1e6,
            p99=latencies[len(latencies) * 99 // 100] / 1e6,
            slowest=latencies[-1] / 1e6,
            writes=sum(device.segments() for device in self.devices.values()) - segments,
            server_cpu=cpu_after[0] - cpu_before[0],
            beside_cpu=cpu_after[1] - cpu_before[1],
            generator_busy=self._busy / 1e9 / elapsed,
            others_cpu=max(0.0, machine - own - sum(cpu_after) + sum(cpu_before)),
        )

    def _pace(self, end: float, rate: float | None, in_flight: int, window: int | None) -> None:
        interval = 1 / rate if rate else 0.0
        due = time.monotonic()
        while (now := time.monotonic()) < end:
            while now >= due and self.publisher.in_flight < in_flight:
                if window is not None and self._published - self._first - self._complete >= window:
                    break
                self._publish()
                # A generator that fell behind does not make up for it with a burst.
                due = max(due + interval, now - interval) if rate else now
            # epoll counts in whole milliseconds and rounds up: the last one is spent turning.
            wait = due - now - 0.001 if rate else 0.001
            self._turn(max(0.0, min(wait, 0.1)))

    def _drain(self) -> float:
        """Reads until every device has every event; returns when the last one came."""
        last, before = time.monotonic(), self._delivered
        deadline = last + DRAIN_SECONDS
        while self._complete < self._published - self._first or self.publisher.in_flight:
            self._turn(0.05)
            now = time.monotonic()
            if self._delivered > before:
                last, before = now, self._delivered
            if now > deadline or now > last + 5:
                break
        return last

    # One turn of the loop

    def _publish(self) -> None:
        self._counts.append(0)
        self.publisher.publish(time.monotonic_ns(), self._published)
        self._published += 1

    def _turn(self, timeout: float) -> None:
        ready = self._poll.poll(timeout, READS_A_TURN)
        started = time.monotonic_ns()
        for fd, _ in ready:
            if device := self.devices.get(fd):
                self._read(device)
            else:
                self.publisher.readable(fd)
        if ready:
            self._busy += time.monotonic_ns() - started

    def _read(self, device: Device) -> None:
        received = device.socket.recv(65536)
        now = time.monotonic_ns()
        if not received:
            raise LoadError("the server closed a device's connection")
        if device.tail:
            received = device.tail + received
            device.tail = b""
        # An event that has come in part waits for its rest; a chunk's closing line break is nothing to wait for.
        end = received.rfind(b"\n\n") + 2
        if end < len(received) and received[end:] != b"\r\n":
            device.tail = received[end:] if end > 1 else received
            received = received[:end] if end > 1 else b""
        for offset, published, number in EVENT.findall(received):
            position, index = int(offset), int(number) - self._first
            if position != device.expected and device.expected >= 0:
                device.breaks += 1
            device.expected = position + 1
            if index < 0:
                continue  # a late one, of before this phase
            self._delivered += 1
            self._latencies.append(now - int(published))
            self._counts[index] += 1
            if self._counts[index] == len(self.devices):
                self._complete += 1

    def _turn_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._turn(0.02)

    def _turn_until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise LoadError(f"waited {seconds:g} s for {what}")
            self._turn(0.02)
