"""`wakeline sessions`: what a person or a script does with sessions."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHandle
from temporalio.testing import WorkflowEnvironment

from tests.commands import wakeline
from tests.support import Served
from tests.terminals import shown, until
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import Settings

STARTED = {"workflow_id": "order-1", "workflow_type": "Order", "run_id": "r", "started_at": "2026-11-21T05:14:43.000Z"}
CLOSED = {"workflow_id": "order-1", "run_id": "r", "closed_at": "2026-11-21T05:14:55.300Z", "drained": True}


async def sessions(served: Served, *arguments: str) -> tuple[int, list[str], str]:
    code, out, err = await wakeline("sessions", *arguments, "--url", served.url)
    return code, out.splitlines(), err


async def names(served: Served, *arguments: str) -> list[str]:
    code, lines, _ = await sessions(served, "list", "--json", *arguments)
    assert code == 0
    return [json.loads(line)["session"] for line in lines]


async def imported(served: Served, name: str, status: str) -> None:
    """A session with one run, which has ended."""
    run = {"workflow_id": name, "run": "r", "run_id": "r", "stream": "r", "workflow_type": "Order", "status": status}
    run["started_at"] = "2026-11-21T05:14:43.000Z"
    head: dict[str, Any] = {"wakeline_export": 1, "session": name, "epoch": "e", "first_offset": 0, "next_offset": 2}
    head |= {"created": "2026-11-21T05:14:43.000Z", "closed": False, "retention": None, "runs": [run]}
    started = {"offset": 0, "topic": "$run.started", "data": STARTED, "time": "2026-11-21T05:14:43.000Z", "run": "r"}
    ended = {
        "offset": 1,
        "topic": "$run.closed",
        "data": CLOSED | {"status": status},
        "time": "2026-11-21T05:14:55.000Z",
    }
    lines = [head, started, ended | {"run": "r"}, {"wakeline_export_end": 2}]
    body = "".join(json.dumps(line) + "\n" for line in lines)
    code, answer = await served.call(
        "POST", f"/v1/sessions/{name}/import", data=body, headers={"Content-Type": "application/x-ndjson"}
    )
    assert code == 201, answer


async def test_a_list_has_a_line_for_each_session_by_name(served: Served) -> None:
    for name in ("b", "a/ü", "c"):
        await served.publish(name, *[{"topic": "t"}] * 1200)
    await served.call("POST", "/v1/sessions/c/close")
    await imported(served, "d", "failed")
    code, lines, err = await sessions(served, "list")
    assert (code, err) == (0, "")
    assert lines[0].split() == ["STATE", "LAST", "RUN", "EVENTS", "DEVICES", "CREATED", "(UTC)", "SESSION"]
    assert [line.split()[0] + " " + line.split()[-1] for line in lines[1:]] == [
        "open a/ü",
        "open b",
        "closed c",
        "settled d",
    ]
    assert lines[1].split()[1] == "1,200"
    assert lines[4].split()[1] == "failed"


async def test_a_list_is_filtered_and_continues(served: Served) -> None:
    for name in ("nord-1", "order", "order-", "order-1", "order-2", "order.x", "p"):
        await served.publish(name, {"topic": "t"})
    await served.call("POST", "/v1/sessions/order-2/close")
    await imported(served, "order-3", "failed")
    await imported(served, "order-4", "completed")
    assert await names(served, "--match", "order-*") == ["order-", "order-1", "order-2", "order-3", "order-4"]
    assert await names(served, "--match", "*-1") == ["nord-1", "order-1"]
    assert await names(served, "--match", "order-?", "--state", "settled") == ["order-3", "order-4"]
    assert await names(served, "--run", "failed") == ["order-3"]
    assert await names(served, "--state", "closed") == ["order-2"]
    assert await names(served, "--after", "order-2", "--match", "order*") == ["order-3", "order-4", "order.x"]
    code, lines, err = await sessions(served, "list", "--match", "order-*", "--limit", "2")
    assert (code, len(lines)) == (0, 3)
    assert err == "there may be more: continue with --after 'order-1'\n"
    assert (await sessions(served, "list", "--match", "q*"))[1:] == ([], "no sessions\n")


async def test_a_list_of_many_pages_is_whole(served: Served) -> None:
    expected = sorted(f"order-{n}" for n in range(230))
    for name in expected:
        await served.publish(name, {"topic": "t"})
    assert await names(served) == expected


async def test_a_session_is_shown_with_its_runs(served: Served) -> None:
    await imported(served, "order-1", "timed_out")
    code, lines, _ = await sessions(served, "show", "order-1")
    facts = {line[:9].strip(): line[9:] for line in lines}
    assert code == 0
    assert (facts["state"], facts["events"]) == ("settled", "2, offsets 0 to 1")
    assert facts["runs"] == "timed out  order-1, run r"
    code, lines, _ = await sessions(served, "show", "order-1", "--json")
    assert json.loads(lines[0])["runs"][0]["status"] == "timed_out"
    code, lines, err = await sessions(served, "show", "nowhere")
    assert (code, lines, err.split(":")[0]) == (2, [], "session_not_found")


async def test_a_session_is_exported_and_imported(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await served.publish("a/b", *[{"topic": "t", "data": n} for n in range(1200)])
    code, lines, err = await sessions(served, "export", "a/b")
    assert (code, err) == (0, "")
    assert lines == ["exported a/b to a%2Fb.ndjson: 1,200 events"]
    code, _, err = await sessions(served, "export", "a/b")
    assert (code, "but a%2Fb.ndjson exists" in err, "Pass --yes." in err) == (2, True, True)
    assert (await sessions(served, "export", "a/b", "-y"))[0] == 0
    code, lines, _ = await sessions(served, "import", "copy", "a%2Fb.ndjson")
    assert (code, lines) == (0, ["imported a%2Fb.ndjson as copy: 1,200 events"])
    assert (await served.call("GET", "/v1/sessions/copy"))[1]["next_offset"] == 1200
    code, _, err = await sessions(served, "import", "copy", "a%2Fb.ndjson")
    assert (code, err.splitlines()[0]) == (2, "session_exists: there is a session 'copy' already")
    code, _, err = await sessions(served, "import", "other", "nowhere.ndjson")
    assert (code, "nowhere.ndjson" in err) == (2, True)


async def test_an_export_to_a_full_disk_says_so(served: Served, tmp_path: Path) -> None:
    await served.publish("s", *[{"topic": "t", "data": "x" * 10_000}] * 100)
    (tmp_path / "s.ndjson.partial").symlink_to("/dev/full")
    code, _, err = await sessions(served, "export", "s", str(tmp_path / "s.ndjson"))
    assert (code, "Traceback" in err) == (2, False)
    assert "the export could not be written: [Errno 28] No space left on device" in err


async def test_an_import_over_a_session_with_runs_says_that_it_exists(served: Served, tmp_path: Path) -> None:
    await imported(served, "order-1", "completed")
    file = str(tmp_path / "order-1.ndjson")
    assert (await sessions(served, "export", "order-1", file))[0] == 0
    code, _, err = await sessions(served, "import", "order-1", file)
    assert (code, err.splitlines()[0]) == (2, "session_exists: there is a session 'order-1' already")


async def test_the_question_says_that_a_run_begins_the_session_again(temporal: WorkflowEnvironment) -> None:
    client = temporal.client
    settings = Settings(port=0, engine="memory", no_auth=True, temporal=client.service_client.config.target_host)
    handle: WorkflowHandle[Any, Any] = await client.start_workflow("Order", id="asked-order", task_queue="nobody")
    async with (
        gateway(settings) as url,
        shown("sessions", "delete", "asked-order", "--url", url) as (terminal, process),
    ):
        await until(terminal, lambda text: "A run is open: its next event begins the session again. [y/N]" in text)
        terminal.type("n\n")
        assert await process.wait() == 1
    await handle.terminate()


async def test_a_session_is_closed(served: Served) -> None:
    await served.publish("s", {"topic": "t"})
    assert (await sessions(served, "close", "s"))[:2] == (0, ["closed s"])
    assert (await served.call("GET", "/v1/sessions/s"))[1]["closed"]


async def test_a_session_is_deleted_only_if_somebody_means_it(served: Served) -> None:
    await served.publish("s", {"topic": "t"})
    code, lines, err = await sessions(served, "delete", "s")
    assert (code, lines, "--yes" in err) == (2, [], True)
    for answer, code in (("n\n", 1), ("y\n", 0)):
        async with shown("sessions", "delete", "s", "--url", served.url) as (terminal, process):
            await until(terminal, lambda text: "Delete session s with 1 event? This cannot be undone. [y/N]" in text)
            terminal.type(answer)
            assert await process.wait() == code
        assert (await served.call("GET", "/v1/sessions/s"))[0] == (200 if code else 404)
    await served.publish("s", {"topic": "t"})
    assert (await sessions(served, "delete", "s", "--yes"))[:2] == (0, ["deleted s"])
    assert (await sessions(served, "delete", "s", "--yes"))[2].startswith("session_not_found")


@pytest.mark.parametrize("arguments", [["show"], ["list", "s"], ["close", "s", "file"], ["import", "s"]])
async def test_arguments_that_do_not_belong_together_are_refused(served: Served, arguments: list[str]) -> None:
    code, _, err = await sessions(served, *arguments)
    assert (code, err.split(":")[0]) == (2, "request_invalid")


async def test_a_reader_that_has_enough_is_no_error(served: Served) -> None:
    for n in range(30):
        await served.publish(f"s-{n}", {"topic": "t"})
    process = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m wakeline sessions list --json --url {served.url} | head -1",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (len(out.splitlines()), err) == (1, b"")


async def test_help_teaches(served: Served) -> None:
    _, lines, _ = await sessions(served, "--help")
    text = " ".join(" ".join(lines).split())
    for part in ("wakeline sessions export order-1 order-1.ndjson", "--match 'order-*'", "WAKELINE_TOKEN", "manage"):
        assert part in text
