"""A process's way to servers on loopback, which can be cut silently: nothing passes any more, and nobody is told.

In a network namespace of its own, the process has two links to this machine: one to the servers, which is taken down, and one
for its own clients, which stays. That needs root. Elsewhere a forwarder between the two holds back what comes.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count

from tests.accepting import accepting

_numbers = count()


class Way:
    """The way of one process.

    Attributes:
        host: The address that the process listens on.
        prefix: What stands before the command, and starts it.
    """

    def __init__(self, links: _Links | None) -> None:
        self.host = links.clients if links is not None else "127.0.0.1"
        self.prefix = links.prefix if links is not None else ()
        self._links = links
        self._open = asyncio.Event()
        self._open.set()
        self._places: dict[str, str] = {}

    def address(self, address: str) -> str:
        """Return an address of servers as the process reaches them."""
        for place, ours in self._places.items():
            address = address.replace(place, ours)
        return address

    def cut(self) -> None:
        """Let nothing pass to the servers and from them."""
        if self._links is not None:
            self._links.set("down")
        else:
            self._open.clear()

    def mend(self) -> None:
        """Let it pass again, and what was held back."""
        if self._links is not None:
            self._links.set("up")
        else:
            self._open.set()

    @asynccontextmanager
    async def forward(self, port: int, *, stays: bool = False) -> AsyncIterator[None]:
        """Forward connections to a port of loopback, by the link that is cut or by the one that stays."""
        host = "127.0.0.1"
        if self._links is not None:
            host = self._links.here_stays if stays else self._links.here
        async with accepting(partial(self._serve, port=port, stays=stays), host) as place:
            self._places[f"127.0.0.1:{port}"] = f"{host}:{place}"
            yield

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, port: int, stays: bool
    ) -> None:
        ends = [writer]
        try:
            further, back = await asyncio.open_connection("127.0.0.1", port)
            ends.append(back)
            passing = [
                asyncio.ensure_future(self._pass(*pair, stays=stays)) for pair in ((reader, back), (further, writer))
            ]
            try:
                await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in passing:
                    task.cancel()
                await asyncio.gather(*passing, return_exceptions=True)
        except OSError:
            pass
        finally:
            for end in ends:
                end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, stays: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                if not stays:
                    await self._open.wait()
                writer.write(data)
                await writer.drain()


@dataclass(frozen=True)
class _Links:
    """The two links of a namespace: addresses at both ends."""

    name: str
    interface: str
    here: str
    here_stays: str
    clients: str

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.name)

    def set(self, state: str) -> None:
        _ip(f"link set {self.interface}s {state}")


def _ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True, capture_output=True)


@contextmanager
def _namespace() -> Iterator[_Links]:
    number = next(_numbers)
    net = f"10.{200 + os.getpid() // 256 % 50}.{os.getpid() % 256}"
    at = number * 8 % 248
    name, interface = f"wakeline-{os.getpid()}-{number}", f"wl{os.getpid() % 100_000}x{number}"
    links = _Links(name, interface, f"{net}.{at + 1}", f"{net}.{at + 5}", f"{net}.{at + 6}")
    _ip(f"netns add {name}")
    try:
        for kind, here, there in (("s", links.here, f"{net}.{at + 2}"), ("c", links.here_stays, links.clients)):
            _ip(f"link add {interface}{kind} type veth peer name {kind}0 netns {name}")
            _ip(f"addr add {here}/30 dev {interface}{kind}")
            _ip(f"link set {interface}{kind} up")
            _ip(f"-n {name} addr add {there}/30 dev {kind}0")
            _ip(f"-n {name} link set {kind}0 up")
        _ip(f"-n {name} link set lo up")
        yield links
    finally:
        _ip(f"netns del {name}")  # and with it both links


@asynccontextmanager
async def way_to(ports: Sequence[int], *, stays: Sequence[int] = (), apart: bool) -> AsyncIterator[Way]:
    """A way to servers.

    Args:
        ports: Their ports on loopback.
        stays: Ports of others, whose way is not cut.
        apart: Whether the process gets a network namespace.
    """
    async with AsyncExitStack() as stack:
        way = Way(stack.enter_context(_namespace()) if apart else None)
        for port in ports:
            await stack.enter_async_context(way.forward(port))
        for port in stays:
            await stack.enter_async_context(way.forward(port, stays=True))
        yield way
        way.mend()
