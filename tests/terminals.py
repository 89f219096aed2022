"""A terminal that shows what a command writes: enough of one for lines that are erased and written again."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

_TOKEN = re.compile(r"\x1b\[(?P<numbers>[?\d;]*)(?P<command>[a-zA-Z])|(?P<control>[\r\n])|(?P<text>[^\x1b\r\n]+)")


class Terminal:
    """What a person sees: its lines, however far they have scrolled."""

    def __init__(self, file: int) -> None:
        self.file = file
        self.lines = [""]
        self.written = ""
        self._row = 0
        self._column = 0

    def write(self, output: str) -> None:
        self.written += output
        at = 0
        for token in _TOKEN.finditer(output):
            assert token.start() == at, f"expected a sequence that is known, got {output[at : at + 20]!r}"
            at = token.end()
            match token.lastgroup, token["command"]:
                case "text", _:
                    line = self.lines[self._row].ljust(self._column)
                    end = self._column + len(token[0])
                    self.lines[self._row] = line[: self._column] + token[0] + line[end:]
                    self._column = end
                case "control", _:
                    self._column = 0  # the line discipline writes \r\n
                    self._row += token[0] == "\n"
                    self.lines += [""] * (self._row + 1 - len(self.lines))
                case _, "A":
                    self._row -= int(token["numbers"] or 1)
                case _, "K":
                    assert token["numbers"] == "2"
                    self.lines[self._row] = ""
                case _, command:
                    assert command in "mhl", f"expected a command that is known, got {token[0]!r}"

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.file, keys.encode())

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).rstrip()


@asynccontextmanager
async def shown(*arguments: str, columns: int = 80) -> AsyncIterator[tuple[Terminal, asyncio.subprocess.Process]]:
    """`wakeline …` on a terminal, both its outputs; killed at the end."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "LINES")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "wakeline", *arguments),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "COLUMNS": str(columns), "TERM": "xterm", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    os.close(theirs)
    terminal = Terminal(ours)
    loop = asyncio.get_running_loop()
    rest = b""

    def read() -> None:
        nonlocal rest
        try:
            rest += os.read(ours, 65536)
        except OSError:  # the command has ended
            loop.remove_reader(ours)
            return
        # Neither a character nor a sequence is cut: each piece ends where one ends.
        text = rest.decode(errors="ignore")
        end = max(text.rfind("\x1b"), 0) if re.search(r"\x1b(\[[?\d;]*)?$", text) else len(text)
        terminal.write(text[:end])
        rest = rest[len(text[:end].encode()) :]

    loop.add_reader(ours, read)
    try:
        yield terminal, process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        loop.remove_reader(ours)
        os.close(ours)


async def until(terminal: Terminal, seen: Callable[[str], bool]) -> str:
    """Wait for something to be on a terminal, and return its text."""
    try:
        async with asyncio.timeout(60):
            while not seen(terminal.text()):
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"expected another text on the terminal, it has\n{terminal.text()}") from None
    return terminal.text()
