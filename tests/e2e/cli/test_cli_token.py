"""`wakeline token`, and a gateway that asks, as a person runs them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import jwt
import pytest

from tests.commands import wakeline
from tests.support import Served
from tests.tokens import SECRET
from tests.unit.conftest import Serve
from wakeline.publisher.frames import Identity
from wakeline.publisher.spool import Spool


async def run(*arguments: str, secret: str | None = SECRET, **environment: str) -> tuple[int, str, str]:
    """The command with a secret in its environment."""
    settings = {"WAKELINE_TOKEN_SECRET": secret} if secret is not None else {}
    return await wakeline(*arguments, environment={**settings, **environment})


async def _start(*arguments: str, environment: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "wakeline", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **environment},
    )


async def test_it_prints_a_token_that_others_can_read() -> None:
    code, out, err = await run(
        *("token", "--user", "alice", "--session", "order-*", "--session", "chat"),
        *("--allow", "read", "--allow", "ack", "--topic", "status", "--topic", "$run.*", "--cache", "--expires", "1h"),
        *("--publisher", "run:*"),
        WAKELINE_TOKEN_ISSUER="https://issuer.example",
        WAKELINE_TOKEN_AUDIENCE="wakeline",
    )
    assert (code, err) == (0, "")
    claims = jwt.decode(out.strip(), SECRET, algorithms=["HS256"], audience="wakeline", issuer="https://issuer.example")
    assert claims.pop("exp") == pytest.approx(time.time() + 3600, abs=30)
    assert claims == {
        "sub": "alice",
        "iss": "https://issuer.example",
        "aud": "wakeline",
        "wakeline": {
            "sessions": ["order-*", "chat"],
            "allow": ["read", "ack"],
            "topics": ["status", "$run.*"],
            "publishers": ["run:*"],
            "cache": True,
        },
    }


async def test_what_is_not_said_is_not_granted() -> None:
    _, out, _ = await run("token", "--user", "alice", "--session", "order-1")
    claims = jwt.decode(out.strip(), SECRET, algorithms=["HS256"])
    assert claims["wakeline"] == {"sessions": ["order-1"], "allow": ["read", "ack"]}


@pytest.mark.parametrize(
    ("arguments", "secret", "message"),
    [
        (["--user", "a", "--session", "s"], None, "settings_invalid: expected token_secret"),
        (["--user", "a", "--session", "s"], "short", "settings_invalid: expected token_secret to have at least 32"),
        (["--user", "a", "--session", "s", "--expires", "soon"], SECRET, "request_invalid: expected --expires"),
        (["--user", "a", "--session", "s", "--expires", "0s"], SECRET, "request_invalid: expected --expires"),
        (["--user", "a", "--session", "a\nb"], SECRET, "session_name_invalid: "),
        (["--user", "a", "--session", "s", "--topic", ""], SECRET, "topic_invalid: "),
        (["--user", "a", "--session", "x*y"], SECRET, "request_invalid: expected --session to be a name, or"),
        (["--user", "a", "--session", "s", "--topic", "*.x*"], SECRET, "request_invalid: expected --topic to be"),
    ],
)
async def test_it_refuses_with_one_message(arguments: list[str], secret: str | None, message: str) -> None:
    code, out, err = await run("token", *arguments, secret=secret)
    assert (code, out) == (2, "")
    assert err.startswith(message)


async def test_an_action_that_there_is_not_is_refused() -> None:
    code, _, err = await run("token", "--user", "a", "--session", "s", "--allow", "fly")
    assert code != 0
    assert "fly" in err


async def test_its_help_teaches() -> None:
    code, out, _ = await wakeline("token", "--help")
    assert code == 0
    for said in ("openssl rand", "--session 'order-*'", "Authorization: Bearer", '"allow": ["read", "ack"]'):
        assert said in out


async def test_serve_asks_for_tokens_where_there_is_a_secret(tmp_path: Path) -> None:
    environment = {"WAKELINE_TOKEN_SECRET": SECRET, "NO_COLOR": "1"}
    arguments = ("serve", "--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path / "data"))
    process = await _start(*arguments, environment=environment)
    try:
        assert process.stderr is not None
        line = ""
        while "listening on" not in line:
            line = (await asyncio.wait_for(process.stderr.readline(), 60)).decode()
            assert line, "the gateway ended before it listened"
        port = int(line.split("http://0.0.0.0:")[1].split('"')[0].split()[0])
        _, out, _ = await run("token", "--user", "me", "--session", "*")
        async with Served(f"http://127.0.0.1:{port}") as served:
            assert (await served.call("GET", "/v1/sessions"))[0] == 401
            headers = {"Authorization": f"Bearer {out.strip()}"}
            assert (await served.call("GET", "/v1/sessions", headers=headers))[0] == 200
            for headers in ({"Authorization": "Bearer " + "z" * 64_000}, {"Authorization": f"Bearer {'z' * 9000}"}):
                assert (await served.call("GET", "/v1/sessions", headers=headers))[0] in (400, 401)
    finally:
        process.terminate()
        _, rest = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    log = line + rest.decode()
    assert SECRET not in log
    assert "zzzz" not in log
    assert out.strip()[-40:] not in log


async def test_serve_says_what_is_missing(tmp_path: Path) -> None:
    arguments = ("serve", "--port", "0", "--data", str(tmp_path / "data"))
    without, both, short = await asyncio.gather(
        run(*arguments, secret=None), run(*arguments, "--no-auth"), run(*arguments, secret="too short")
    )
    code, _, err = without
    assert (code, err.split(":")[0]) == (2, "listen_refused")
    assert "--no-auth" in err
    assert "WAKELINE_TOKEN_SECRET" in err
    code, _, err = both
    assert (code, err.split(":")[0]) == (2, "settings_invalid")
    code, _, err = short
    assert (code, err.split(":")[0]) == (2, "settings_invalid")
    assert "too short" not in err


@pytest.mark.parametrize("command", ["publish", "tail", "drain"])
async def test_commands_without_a_token_fail_at_once(
    serve: Serve, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WAKELINE_TOKEN", raising=False)
    guarded, spool = await serve(token_secret=SECRET), tmp_path / "spool.db"
    await asyncio.to_thread(Spool.at(spool).add, Identity(session="s", publisher="p"), 0, [b'{"topic":"t","data":1}'])
    arguments = {"publish": ["s", "1"], "tail": ["s"], "drain": [str(spool), "--wait"]}[command]
    code, _, err = await asyncio.wait_for(wakeline(command, *arguments, "--url", guarded.url), 60)
    assert err.startswith("token_missing: expected a token, got none")
    assert code in (1, 2)
