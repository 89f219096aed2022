"""What a command prints when it cannot do what it was told: at once, and what to do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

from tests.commands import start, wakeline
from tests.support import Served


async def test_an_input_reports_that_it_is_retried_when_that_begins() -> None:
    code, _, err = await wakeline("input", "order-1", "approve", "--wait", "4", "--url", "http://127.0.0.1:1")
    assert code == 2
    first, *_ = err.splitlines()
    assert first.startswith("the gateway cannot be reached")
    assert first.endswith("; retrying")
    assert err.count("; retrying") == 1


async def test_an_answer_reports_that_it_is_retried_when_that_begins(tmp_path: Path) -> None:
    command = ("requests", "answer", "order-1", "pay-1", "approve", "--url", "http://127.0.0.1:1")
    file = tmp_path / "output"
    with file.open("wb") as output:
        running = await start(*command, output=output, environment=os.environ)
    async with asyncio.timeout(28):  # the command itself gives up after 30 s
        while "; retrying" not in file.read_text():
            await asyncio.sleep(0.05)
    assert running.returncode is None
    running.send_signal(signal.SIGKILL)
    await running.wait()


async def test_a_late_answer_prints_the_outcome_that_counts(served: Served) -> None:
    body = {"id": "pay-1", "reason": "approval", "choices": ["approve", "reject"]}
    await served.call("POST", "/v1/sessions/order-1/requests", json=body)
    assert (await wakeline("requests", "answer", "order-1", "pay-1", "approve", "--url", served.url))[0] == 0
    code, out, err = await wakeline("requests", "answer", "order-1", "pay-1", "reject", "--url", served.url)
    assert (code, out, err.split(":")[0]) == (2, "", "already_resolved")
    assert '"status":"resolved","payload":"approve"' in err


async def test_a_listed_request_has_the_times_of_the_gateway_s_answer(served: Served) -> None:
    body = {"id": "pay-1", "reason": "approval", "expires_in": 3600}
    status, asked = await served.call("POST", "/v1/sessions/order-1/requests", json=body)
    assert status in (200, 201), asked
    _, answer = await served.call("GET", "/v1/sessions/order-1/requests")
    code, out, _ = await wakeline("requests", "list", "order-1", "--url", served.url)
    assert code == 0
    assert json.loads(out)["expires_at"] == answer["requests"][0]["expires_at"]


async def test_dev_reads_the_settings_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "wakeline.toml"
    file.write_text("prot = 1")
    code, _, err = await wakeline("dev", "--config", str(file))
    assert (code, err.split(":")[0]) == (2, "settings_invalid")
    assert "did you mean port?" in err


async def test_another_server_s_answer_has_a_code_that_is_documented() -> None:
    class Other(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        thread = Thread(target=other.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{other.server_port}"
            code, _, err = await asyncio.wait_for(wakeline("publish", "x", "1", "--url", url), 28)
        finally:
            other.shutdown()
            thread.join()
    assert (code, err.split(":")[0]) == (2, "not_a_gateway")
    assert "by default http://127.0.0.1:7777" in err


async def test_an_argument_too_many_is_named_with_where_to_look() -> None:
    code, _, err = await wakeline("tail", "a", "b")
    assert code != 0
    assert "More arguments than the command takes: b." in " ".join(err.split())
    assert "wakeline tail --help" in err
