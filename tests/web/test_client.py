"""The npm workspace: its checks, and the tests of @wakeline/client against a real gateway."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from tests.web.conftest import SECONDS, WEB, Npx

MAIN_ENTRY_BYTES = 8 * 1024


@pytest.mark.parametrize("folder", ["client", "react", "demo", "inspector"])
def test_the_types_hold(npx: Npx, folder: str) -> None:
    npx(folder, "tsc", "--noEmit")


def test_the_source_is_linted_and_formatted(npx: Npx) -> None:
    npx(".", "biome", "ci", "--colors=off", ".")


@pytest.mark.timeout(SECONDS + 20)
def test_the_client_and_random_schedules_of_faults(npx: Npx) -> None:
    npx("client", "vitest", "run")


def test_the_react_hooks(npx: Npx) -> None:
    npx("react", "vitest", "run")


def test_the_main_entry_is_small_and_loads_nothing_else_at_once(built: Path) -> None:
    entry = (built / "index.js").read_bytes()
    assert not re.search(rb"""(^|[;}])(import|export)[^(]*?from["'`]""", entry)
    assert len(gzip.compress(entry, 9)) <= MAIN_ENTRY_BYTES


def test_the_packages_are_whole(npx: Npx) -> None:
    for folder in ("client", "react"):  # in this order: one uses the types of the other
        for command in json.loads((WEB / folder / "package.json").read_text())["scripts"]["build"].split(" && "):
            npx(folder, *command.split())
        assert (WEB / folder / "dist" / "index.d.ts").exists()
    hooks = (WEB / "react" / "dist" / "index.js").read_text()
    assert hooks.startswith('"use client";')
