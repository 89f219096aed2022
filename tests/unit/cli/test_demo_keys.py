"""The keys of `wakeline demo` at a terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import sys
from collections.abc import Iterator

import pytest

from wakeline.cli.demo import live


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The user's end of a terminal, whose other end is stdin."""
    user, program = pty.openpty()
    with open(program) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield user


async def test_keys_that_are_typed_quickly_all_count(terminal: int) -> None:
    pressed: list[str] = []
    with live._keys(pressed.append):
        os.write(terminal, b"kq")
        async with asyncio.timeout(60):
            while pressed != ["k", "q"]:
                await asyncio.sleep(0.01)
    os.close(terminal)


async def test_a_terminal_that_is_gone_is_not_read_again(terminal: int, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, removed = asyncio.get_running_loop(), asyncio.Event()
    remove = loop.remove_reader

    def removing(file: int) -> bool:
        removed.set()
        return remove(file)

    with live._keys(lambda _: None):
        monkeypatch.setattr(loop, "remove_reader", removing)
        os.close(terminal)
        async with asyncio.timeout(60):
            await removed.wait()
        monkeypatch.undo()
