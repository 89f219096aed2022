"""The demo for people: a page that shows it, keys that disturb it, and the counter."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import termios
import tty
import webbrowser
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table

from wakeline.background import begin, cancel_all
from wakeline.cli.demo.approval import APPROVE
from wakeline.cli.demo.page import Page
from wakeline.cli.demo.scene import KINDS, Scene, counter_line, scene
from wakeline.errors import ListenRefusedError

OFFLINE_SECONDS: Final = 10.0
_SHOWN_SECONDS: Final = 5.0
"""Seconds for which the page shows how a workflow ended, before the next one of its kind begins."""
_SECONDS: Final = {"order": 20.0, "agent": 40.0, "pipeline": 30.0}
_KEYS: Final = (
    "[b]k[/] kill the gateway  [b]o[/] phone offline 10 s  [b]t[/] terminate a workflow  [b]a[/] approve  [b]q[/] quit"
)


class LiveDemo:
    """Keeps one workflow of each kind running, and executes the keys' actions."""

    def __init__(self, stage: Scene, url: str) -> None:
        self._stage = stage
        self._url = url
        self._run = secrets.token_hex(8)  # a page reloads when it sees that another demo serves it
        self._tasks: set[asyncio.Task[None]] = set()
        self.quit = asyncio.Event()
        self.actions = {
            "kill": self.kill,
            "offline": self.offline,
            "terminate": self.terminate,
            "approve": self.approve,
        }

    async def run(self) -> None:
        """Run until the user quits."""
        for device in self._stage.devices:
            device.go_online()
        self.do(self._keep_talking())
        await self.quit.wait()
        await cancel_all(*self._tasks)

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in the background."""
        begin(work, self._tasks)

    def key(self, key: str) -> None:
        """Execute the action whose name begins with the key, or quit."""
        for name, action in self.actions.items():
            if name[0] == key:
                self.do(action())
        if key in ("q", "\x03", "\x04"):
            self.quit.set()

    async def kill(self) -> None:
        """Kill the gateway with SIGKILL, and restart it."""
        if self._stage.gateway.up:
            await self._stage.gateway.kill_and_restart()

    async def offline(self) -> None:
        """Take the phone offline for a while; return when it is offline."""
        phone = self._stage.devices[1]
        if phone.online:
            await phone.go_offline()
            self.do(self._come_back())

    async def _come_back(self) -> None:
        await asyncio.sleep(OFFLINE_SECONDS)
        self._stage.devices[1].go_online()

    async def terminate(self) -> None:
        """Terminate the workflow that has run longest."""
        if running := self._stage.running():
            await self._stage.terminate(running[0])
            await self._stage.look()  # so that the next key terminates another one

    async def approve(self) -> None:
        """Approve on the laptop whatever waits for an approval."""
        await self._stage.devices[0].answer(APPROVE)

    async def _keep_talking(self) -> None:
        shown: dict[str, float] = {}  # since when a kind's last end is shown, on the clock of the loop
        clock = asyncio.get_running_loop().time
        for kind in KINDS:
            await self._stage.begin(kind, _SECONDS[kind])
        while True:
            for kind in KINDS:
                if self._stage.running(kind) or not self._stage.is_shown(kind):
                    shown.pop(kind, None)
                elif clock() - shown.setdefault(kind, clock()) >= _SHOWN_SECONDS:
                    await self._stage.begin(kind, _SECONDS[kind])
            await asyncio.sleep(0.5)
            await self._stage.look()

    def state(self) -> dict[str, Any]:
        """Return the state that the page shows."""
        stage = self._stage
        sent, missing, duplicate = stage.counter()
        return {
            "run": self._run,
            "gateway": {"url": stage.gateway.url, "up": stage.gateway.up, "restarts": stage.gateway.restarts},
            "counter": {"sent": sent, "missing": missing, "duplicate": duplicate},
            "sessions": [
                {"session": p.session, "title": p.kind.title(), "kind": p.kind, "status": p.status} for p in stage.plays
            ],
            "devices": [{"name": d.name, "online": d.online} for d in stage.devices],
            "notified": [{"device": "phone", **msgspec.structs.asdict(n)} for n in stage.push.shown.values()],
        }

    def screen(self) -> Table:
        """Return the table that the terminal shows."""
        stage = self._stage
        table = Table.grid(padding=(0, 2))
        table.add_row("[b]page[/]", self._url)
        light = "[green]up[/]" if stage.gateway.up else "[red]down[/]"
        table.add_row("[b]gateway[/]", f"{light}, restarted {stage.gateway.restarts} times")
        for device in stage.devices:
            seen = sum(len(s.items) for s in device.sessions.values())
            light = "[green]online[/]" if device.online else "[yellow]offline[/]"
            table.add_row(f"[b]{device.name}[/]", f"{light}, {seen:,} events")
        for play in stage.plays[-len(KINDS) :]:
            question = stage.devices[0].sessions[play.session].question
            asks = f", waits for an answer: {question['message']}" if question else ""
            table.add_row(f"[b]{play.session}[/]", f"{play.status}, {play.sent} events{asks}")
        sent, missing, duplicate = stage.counter()
        table.add_row("[b]counter[/]", f"[b]{counter_line(sent, missing, duplicate)}[/]")
        table.add_row("[b]keys[/]", _KEYS)
        return table


async def run_live(*, port: int, open_page: bool) -> None:
    """Run the demo until `q` or Ctrl-C, then remove everything that it started."""
    console = Console()
    page = Page()
    async with AsyncExitStack() as stack:
        try:
            url = await stack.enter_async_context(page.serve(port))
        except (OSError, OverflowError) as error:
            raise ListenRefusedError.of("127.0.0.1", port, error) from error
        with console.status("starting Temporal, the gateway and a worker"):
            stage = await stack.enter_async_context(scene(url))
        demo = LiveDemo(stage, url)
        page.state, page.actions = demo.state, demo.actions
        try:
            await _show(console, demo, url, open_page=open_page)
        finally:
            console.print(counter_line(*stage.counter()), highlight=False)


async def _show(console: Console, demo: LiveDemo, url: str, *, open_page: bool) -> None:
    console.print(f"[b]Open {url}[/]", highlight=False)
    if open_page and sys.stdout.isatty():
        with suppress(webbrowser.Error):
            await asyncio.to_thread(webbrowser.open, url)
    with _keys(demo.key):
        if not sys.stdout.isatty():
            await demo.run()
            return
        running = asyncio.create_task(demo.run())
        with Live(demo.screen(), console=console, refresh_per_second=4) as live:
            while not running.done():
                live.update(demo.screen())
                await asyncio.wait([running], timeout=0.25)
        await running


@contextmanager
def _keys(pressed: Callable[[str], None]) -> Iterator[None]:
    """Call `pressed` with every key of the terminal, if there is one."""
    if not sys.stdin.isatty():
        yield
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    loop = asyncio.get_running_loop()
    tty.setcbreak(terminal)

    def read() -> None:
        # Not `sys.stdin.read(1)`, which keeps the other keys that wait in its buffer, where the loop does not see them.
        keys = b""
        with suppress(OSError):  # the terminal is gone
            keys = os.read(terminal, 64)
        for key in keys.decode("utf-8", "replace"):
            pressed(key)
        if not keys:
            loop.remove_reader(terminal)

    loop.add_reader(terminal, read)
    try:
        yield
    finally:
        loop.remove_reader(terminal)
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)
