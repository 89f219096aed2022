"""The commands as a person runs them: processes, exit codes and what they print."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.commands import wakeline
from tests.gateways import GatewayProcess
from tests.support import Served


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[GatewayProcess]:
    gateway = GatewayProcess(tmp_path / "data")
    await gateway.start()
    yield gateway
    await gateway.kill()


COMMANDS = ["serve", "dev", "demo", "tail", "publish", "token"]


async def test_help_names_every_command() -> None:
    code, out, _ = await wakeline("--help")
    assert code == 0
    assert [command for command in COMMANDS if command not in out] == []


@pytest.mark.parametrize("command", COMMANDS)
async def test_every_command_has_help_that_teaches(command: str) -> None:
    code, out, _ = await wakeline(command, "--help")
    assert code == 0
    assert out.startswith(f"Usage: wakeline {command}")


async def test_serve_says_where_it_listens_and_sigterm_stops_it_cleanly(tmp_path: Path) -> None:
    running = GatewayProcess(tmp_path / "data", afresh=True)
    await running.start()
    async with asyncio.timeout(60):  # it answers a moment before it says so
        while f"listening on {running.url}" not in running.log.read_text():
            await asyncio.sleep(0.05)
    assert "--no-auth" in running.log.read_text()
    async with Served(running.url) as served:
        await served.publish("s", {"topic": "t", "data": 1})
        stream = await served.stream("s")
        await stream.next()
        assert await running.stop() == 0
    await running.start()
    async with Served(running.url) as served:
        assert (await served.call("GET", "/v1/sessions/s"))[1]["next_offset"] == 1
    await running.kill()


async def test_serve_logs_what_was_meant_otherwise(tmp_path: Path) -> None:
    gateway = GatewayProcess(
        tmp_path / "data",
        environment={"WAKELINE_TEMPORL": "localhost:7233", "WAKELINE_URL": "u", "WAKELINE_TOKEN": "t"},
    )
    await gateway.start()
    try:
        async with Served(gateway.url) as served:
            for origin in ("http://localhost:3000", "http://localhost:3000", "http://localhost:5173"):
                assert (await served.call("GET", "/v1/sessions", headers={"Origin": origin}))[0] == 403
            error = (await served.call("GET", "/v1/sessions/order-1"))[1]["error"]
        _, _, err = await wakeline("tail", "order-1", "--url", gateway.url)
    finally:
        await gateway.stop()
    log = gateway.log.read_text()
    assert "WAKELINE_TEMPORL is not one of Wakeline's and has no effect; did you mean WAKELINE_TEMPORAL?" in log
    assert not re.search(r"WAKELINE_(URL|TOKEN) is none", log)
    assert "Temporal is off: no workflow is followed; --temporal HOST:PORT turns it on" in log
    assert [log.count(f'"origin": "{origin}"') for origin in ("http://localhost:3000", "http://localhost:5173")] == [
        1,
        1,
    ]
    for told in (error["hint"], err):
        assert "runs without Temporal" in told
        assert "--temporal HOST:PORT" in told
        assert "token" not in told


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], "listen_refused"),
        (["--no-auth", "--host", "0.0.0.0"], "listen_refused"),
        (["--config", "nowhere.toml"], "settings_invalid"),
        (["--no-auth", "--cors-origins", "*"], "settings_invalid"),
        (["--no-auth", "--namespace", "shop"], "settings_invalid"),
    ],
)
async def test_serve_refuses_with_one_message(arguments: list[str], code: str) -> None:
    exit_code, _, err = await wakeline("serve", *arguments)
    assert exit_code == 2
    assert err.startswith(f"{code}: ")
    assert "Traceback" not in err


async def test_serve_refuses_a_port_and_a_directory_that_are_taken(running: GatewayProcess, tmp_path: Path) -> None:
    serve = ("serve", "--no-auth", "--data")
    (code, _, err), (code_of_data, _, err_of_data) = await asyncio.gather(
        wakeline(*serve, str(tmp_path / "other"), "--port", str(running.port)),
        wakeline(*serve, str(tmp_path / "data"), "--port", "0"),
    )
    assert (code, err.split(":")[0]) == (2, "listen_refused")
    assert (code_of_data, err_of_data.split(":")[0]) == (2, "data_in_use")
    assert running.process is not None
    assert f"expected to be alone on {tmp_path / 'data'}, process {running.process.pid} has it" in err_of_data


async def test_the_hint_of_a_refusal_at_start_is_that_refusal_s(running: GatewayProcess, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    serve = ("serve", "--no-auth", "--data")
    cases = {
        ("--port", str(running.port)): "0 takes a free one",
        ("--port", "70000"): "Correct the setting",
        ("--host", "0.0.0.0"): "listen on 127.0.0.1 with --no-auth",
    }
    answers = await asyncio.gather(
        wakeline(*serve, str(file / "data"), "--port", "0"),
        *(wakeline(*serve, str(tmp_path / f"other-{number}"), *more) for number, more in enumerate(cases)),
    )
    for (code, _, err), hint in zip(
        answers, ["Give --data a directory that this user may write to", *cases.values()], strict=True
    ):
        assert code == 2
        assert hint in err.splitlines()[1]
    assert "got 70000" in answers[2][2]


def taken() -> socket.socket:
    """A port that somebody listens on."""
    return socket.create_server(("127.0.0.1", 0))


async def test_dev_names_the_port_that_is_taken(tmp_path: Path) -> None:
    dev = ("dev", "--data", str(tmp_path / "data"), "--port", "0")
    with taken() as listening:
        port = listening.getsockname()[1]
        of_temporal, of_ui, none = await asyncio.gather(
            wakeline(*dev, "--temporal-port", str(port), "--ui-port", "0"),
            wakeline(*dev, "--temporal-port", "0", "--ui-port", str(port)),
            wakeline(*dev, "--temporal-port", "70000", "--ui-port", "0"),
        )
    for (code, _, err), option in ((of_temporal, "--temporal-port"), (of_ui, "--ui-port")):
        assert code == 2
        assert err.startswith(f"listen_refused: cannot listen on 127.0.0.1:{port}: ")
        assert f"give {option} another port" in err
    assert none[0] == 2
    assert "Give --temporal-port a port from 0 to 65535" in none[2]


async def test_dev_shares_its_port_with_nobody(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as listening:
        port = str(listening.getsockname()[1])
        code, _, err = await wakeline(
            *("dev", "--data", str(tmp_path / "data"), "--port", port, "--temporal-port", "0", "--ui-port", "0"),
            environment={"WAKELINE_PROCESSES": "2"},
        )
    assert code == 2
    assert f"listen_refused: cannot listen on 127.0.0.1:{port}: " in err


async def test_dev_lets_a_page_watch_and_ends_with_its_temporal(tmp_path: Path) -> None:
    page = "http://localhost:3000"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "wakeline", "dev", "--data", str(tmp_path / "data"), "--port", "0"),
        *("--temporal-port", "0", "--ui-port", "0", "--cors-origins", page),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "WAKELINE_NAMESPACE": "shop"},
    )
    assert process.stderr is not None
    said = ""
    async with asyncio.timeout(60):
        while (found := re.search(r"listening on (http://[\d.:]+)", said)) is None:
            line = (await process.stderr.readline()).decode()
            assert line, said
            said += line
        async with Served(found[1]) as served, served.http.get("/readyz", headers={"Origin": page}) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == page
            assert (await answer.json())["temporal"] == "ok"
        (temporal,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(temporal), signal.SIGKILL)
        _, err = await process.communicate()
    assert process.returncode == 2
    assert "--no-auth" not in said
    assert "temporal_unavailable: the Temporal dev server on 127.0.0.1:" in err.decode()


async def test_publish_and_tail(running: GatewayProcess) -> None:
    code, out, _ = await wakeline("publish", "s", '{"state": "packed"}', "--topic", "status", "--url", running.url)
    assert code == 0
    assert json.loads(out)["next_offset"] == 1
    code, out, _ = await wakeline("publish", "s", "--url", running.url, stdin=b"plain words\n[1,2]\n")
    assert [json.loads(line)["first_offset"] for line in out.splitlines()] == [1, 2]
    tail = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "wakeline", "tail", "s", "--json", "--until", "never", "--url", running.url),
        stdout=subprocess.PIPE,
    )
    assert tail.stdout is not None
    lines = [json.loads(await asyncio.wait_for(tail.stdout.readline(), 60)) for _ in range(3)]
    assert [(e["topic"], e["data"]) for e in lines] == [
        ("status", {"state": "packed"}),
        ("message", "plain words"),
        ("message", [1, 2]),
    ]
    await running.kill()
    await running.start()
    await wakeline("publish", "s", "after the crash", "--url", running.url)
    assert json.loads(await asyncio.wait_for(tail.stdout.readline(), 60))["data"] == "after the crash"
    tail.kill()
    await tail.wait()


async def test_publish_at_a_terminal_says_that_it_reads_it(running: GatewayProcess) -> None:
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "wakeline", "publish", "s", "--url", running.url),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.close(theirs)
    assert process.stderr is not None
    said = await asyncio.wait_for(process.stderr.readline(), 60)
    assert said == b"publishing each line of standard input; Ctrl-D ends it\n"
    os.write(ours, b"1\n\x04")
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    os.close(ours)
    assert json.loads(out)["next_offset"] == 1
    assert process.returncode == 0


async def test_tail_and_publish_say_what_is_wrong(running: GatewayProcess) -> None:
    code, _, err = await wakeline("tail", "nowhere", "--url", running.url)
    assert (code, err.split(":")[0]) == (1, "session_not_found")
    assert "add --wait-for-start" in err
    code, out, err = await wakeline("publish", "s", "--url", running.url)
    assert (code, out) == (0, "")
    assert "nothing was published" in err
    code, _, err = await wakeline("tail")
    assert code == 2
    assert "SESSION" in err
    assert "--session" not in err
    code, _, err = await wakeline("tail", "s", "--topics", "a*b", "--url", running.url)
    assert (code, err.split(":")[0]) == (1, "request_invalid")
    assert "Write 'a*' for all" in err
    code, _, err = await wakeline("publish", "s", "1", "--topic", "$own", "--url", running.url)
    assert (code, err.split(":")[0]) == (2, "topic_invalid")
    await running.kill()
    code, _, err = await wakeline("publish", "s", "1", "--url", running.url)
    assert (code, err.split(":")[0]) == (2, "unavailable")


async def test_an_input_that_may_have_arrived_names_the_id_to_repeat_it_with() -> None:
    code, _, err = await wakeline("input", "order-1", "approve", "--wait", "0", "--url", "http://127.0.0.1:1")
    assert code == 2
    assert re.search(r"repeat the command with --id [0-9a-f-]{36}", err)
