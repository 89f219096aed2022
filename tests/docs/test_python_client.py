"""The guide to the Python client: its code runs as it stands, and it names what there is."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from tests.docs.markdown import blocks, span, spans, tables, text
from wakeline.client import Session, SessionClient
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import Settings

GUIDE = "docs/how-to/python-client.md"


async def test_its_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "guide"}

    def run(code: str) -> None:
        compiled = compile(code, GUIDE, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        outcome = eval(compiled, names)
        if inspect.iscoroutine(outcome):
            asyncio.run(outcome)

    async with gateway(Settings(data=str(tmp_path), port=0, no_auth=True, durability="process")) as url:
        monkeypatch.setenv("WAKELINE_URL", url)
        async with SessionClient() as client:
            await client.session("order-1").publish_many([("status", {"state": "packed"}), ("n", 1)])
            await client.session("order-1").close()
        for code in blocks(text(GUIDE), "python"):
            await asyncio.wait_for(asyncio.to_thread(run, code), 60)


def test_every_argument_of_events_is_named() -> None:
    (rows,) = tables(text(GUIDE))
    named = [name for row in rows for name in spans(row["argument"])]
    assert sorted(named) == sorted(set(inspect.signature(Session.events).parameters) - {"self"})
    assert all(span(row["argument"].split(",")[0]) for row in rows)


def test_every_method_of_a_session_is_shown() -> None:
    shown = set(re.findall(r"\.(\w+)\(", text(GUIDE)))
    assert {name for name, value in vars(Session).items() if inspect.isfunction(value) and name[0] != "_"} <= shown
