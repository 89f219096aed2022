"""Publishers that name the workflow that their output comes from: PROTOCOL.md §3."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from temporalio.testing import ActivityEnvironment

from tests.publishers import line
from tests.support import Served
from tests.tokens import SECRET, bearer, token
from tests.unit.conftest import Serve
from tests.upstream import RecordingUpstream, recording
from wakeline.cli.processes import free_port
from wakeline.errors import RequestInvalidError
from wakeline.gateway.access import ANYONE, Grant
from wakeline.gateway.sessions import NOT_ALLOWED, NOT_FOUND, NamedWorkflow, Registrations
from wakeline.publisher import SessionPublisher, SyncSessionPublisher

EVENT = {"events": [{"topic": "t", "data": 1}]}
WORKFLOW = NamedWorkflow("order-1")


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> RecordingUpstream:
    return recording(monkeypatch)


async def append(served: Served, session: str = "s", **headers: str) -> tuple[int, Any]:
    return await served.call("POST", f"/v1/sessions/{session}/events", json=EVENT, headers=headers)


def named(workflow: str, **more: str) -> dict[str, str]:
    return {"Wakeline-Workflow": workflow, **more}


async def test_by_request_the_first_append_tells_and_later_ones_do_not(
    upstream: RecordingUpstream, served: Served
) -> None:
    for sequence in range(3):
        who = {"Wakeline-Publisher": "p", "Wakeline-Sequence": str(sequence), "Wakeline-Run": "run-1"}
        assert (await append(served, **named("order%2F1%C3%A4", **who)))[0] == 200
    assert upstream.told == [("s", "order/1ä", None, True)]
    assert (await append(served, **named("order-2", **{"Wakeline-Namespace": "shop%201"})))[0] == 200, "a plain append"
    assert upstream.told[1:] == [("s", "order-2", "shop 1", True)]


async def test_opening_tells(upstream: RecordingUpstream, served: Served) -> None:
    path = "/v1/sessions/s/publishers/p"
    assert (await served.call("PUT", path, json={"workflow": "order-1", "namespace": "shop"}))[0] == 200
    assert (await served.call("PUT", path, json={}))[0] == 200
    async with line(served) as client:
        await client.open(workflow="order-2")
        await client.open(2, publisher="q", workflow="order-2")
        await client.open(3, publisher="r")
        await client.append("x", channel=2)
        await client.next("appended")
    assert upstream.told == [("s", "order-1", "shop", True), ("s", "order-2", None, True)]


async def test_what_is_refused_is_not_told(upstream: RecordingUpstream, served: Served) -> None:
    async with line(served) as client:
        await client.open(attempt=2)
        await client.send(
            {"type": "open", "channel": 2, "session": "s", "publisher": "p", "attempt": 1, "workflow": "order-1"}
        )
        assert await client.error() == "attempt_fenced"
    await served.call("POST", "/v1/sessions/s/close")
    assert (await append(served, **named("order-1")))[0] == 409
    assert upstream.told == []


async def test_another_run_is_told_and_each_connection_does_not_tell_again(
    upstream: RecordingUpstream, served: Served
) -> None:
    for run in ("run-1", "run-1", "run-2"):
        async with line(served) as client:
            await client.open(workflow="order-1", run=run)
    assert len(upstream.told) == 2


async def test_who_manages_is_told_apart_from_who_only_publishes(upstream: RecordingUpstream, serve: Serve) -> None:
    served = await serve(token_secret=SECRET)
    publishes = bearer(sessions=["s"], allow=["publish"])
    assert (await append(served, **named("order-1"), **publishes))[0] == 200
    for sessions, allow in ((["s"], []), (["s", "order-*"], []), (["s"], ["follow"])):
        scope = bearer(sessions=sessions, allow=["publish", "manage", *allow])
        assert (await append(served, **named("order-1"), **scope))[0] == 200
    # To manage the session is not enough: the token must reach the workflow's own one, or may follow any.
    assert upstream.told == [("s", "order-1", None, False), ("s", "order-1", None, True)]
    assert (await append(served, "other", **named("order-1"), **publishes))[0] == 404
    async with line(served) as client:
        await client.send({"type": "token", "token": token(sessions=["s"], allow=["publish"])})
        await client.next("token")
        await client.open(workflow="order-2")
    assert upstream.told[2:] == [("s", "order-2", None, False)]


@pytest.mark.parametrize(
    "fields",
    [{"workflow": ""}, {"workflow": "w" * 1001}, {"namespace": "shop"}, {"workflow": "w", "namespace": ""}],
    ids=str,
)
async def test_what_names_no_workflow_is_refused_and_nothing_is_appended(
    upstream: RecordingUpstream, served: Served, fields: dict[str, str]
) -> None:
    headers = {f"Wakeline-{name.title()}": value for name, value in fields.items()}
    status, answer = await append(served, **headers)
    assert (status, answer["error"]["code"]) == (400, "request_invalid")
    status, answer = await served.call("PUT", "/v1/sessions/s/publishers/p", json=fields)
    assert (status, answer["error"]["code"]) == (400, "request_invalid")
    async with line(served) as client:
        await client.send({"type": "open", "channel": 1, "session": "s", "publisher": "p", **fields})
        assert await client.error() == "request_invalid"
    assert (await append(served, **{"Wakeline-Workflow": "%FF"}))[0] == 400
    assert (await served.call("GET", "/v1/sessions/s"))[0] == 404
    assert upstream.told == []


async def test_without_temporal_it_is_passed_over(served: Served) -> None:
    assert (await append(served, **named("order-1")))[0] == 200
    async with line(served) as client:
        await client.open(workflow="order-1")


async def test_a_defect_in_following_breaks_no_append(upstream: RecordingUpstream, served: Served) -> None:
    upstream.told = None  # type: ignore[assignment] # so that telling fails
    assert (await append(served, **named("order-1")))[0] == 200
    async with line(served) as client:
        await client.open(workflow="order-1", run="run-1")


def test_the_same_is_told_again_after_a_minute_and_memory_is_bounded() -> None:
    now = [0.0]
    told: list[tuple[str, str, str | None, bool]] = []

    def published(
        session: str,
        workflow_id: str,
        namespace: str | None,
        *,
        run: str | None,
        manages: bool,
        life: str,
        refused: Any,
    ) -> None:
        told.append((session, workflow_id, namespace, manages))

    registrations = Registrations(published, clock=lambda: now[0])
    for moment in (0.0, 59.0, 60.0, 61.0):
        now[0] = moment
        registrations.tell("s", WORKFLOW, "run-1", ANYONE, "life")
    assert told == [("s", "order-1", None, True)] * 2
    elsewhere = Grant("alice", ("chat-*",), frozenset({"publish", "manage"}))
    registrations.tell("s", WORKFLOW, "run-1", elsewhere, "life")
    assert told[2:] == [("s", "order-1", None, False)]
    for number in range(20_000):
        registrations.tell("s", NamedWorkflow(f"order-{number}"), None, ANYONE, "life")
    assert len(registrations) == 10_000
    registrations.tell("s", None, None, ANYONE, "life")
    assert len(told) == 20_003


async def test_a_publisher_whose_workflow_is_not_followed_is_warned_once_and_the_log_says_so_once_for_its_user(
    upstream: RecordingUpstream, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.refuses = NOT_ALLOWED
    with capture_logs() as logged:
        async with line(served) as client:
            for channel in (1, 2):
                await client.open(channel, publisher=f"p{channel}", workflow=f"order-{channel}")
                warned = await client.next("warning")
                assert warned["channel"] == channel
                assert f"workflow 'order-{channel}' is not followed into session 's'" in warned["message"]
                assert warned["hint"] == NOT_ALLOWED.hint
            await client.append("x")
            await client.next("appended")
            await client.open(3, publisher="p3", workflow="order-1")
            assert (await client.next("warning"))["channel"] == 3, "it is known already"
        assert (await append(served, **named("order-3")))[0] == 200
        for number in (4, 5):
            async with SessionPublisher(served.url, session="s", workflow=f"order-{number}") as session:
                await session.topic("t").publish(1)
                async with asyncio.timeout(60):
                    while not caplog.messages:
                        await asyncio.sleep(0.01)
    (line_of_it,) = [entry for entry in logged if "is not followed into its session" in entry["event"]]
    assert (line_of_it["log_level"], line_of_it["session"], line_of_it["workflow_id"]) == ("warning", "s", "order-1")
    assert "memo wakeline.session" in line_of_it["hint"]
    assert "manage" in line_of_it["hint"]
    (message,) = [one for one in caplog.messages if "is not followed" in one]
    assert "workflow 'order-4' is not followed into session 's'" in message
    assert NOT_ALLOWED.hint in message


async def test_the_users_whose_refusals_are_logged_are_bounded(upstream: RecordingUpstream) -> None:
    def published(*_: Any, refused: Any, **how: Any) -> None:
        refused(NOT_FOUND)

    registrations = Registrations(published)
    with capture_logs() as logged:
        for number in range(200):
            grant = Grant(f"user-{number}", ("*",), frozenset({"publish"}))
            for workflow in ("order-1", "order-2"):
                registrations.tell("s", NamedWorkflow(workflow), None, grant, f"life-{number}")
    assert [entry["user"] for entry in logged] == [f"user-{number}" for number in range(100)]


async def test_a_workflow_is_told_again_for_the_next_life_of_its_session(
    upstream: RecordingUpstream, served: Served
) -> None:
    for _ in range(2):
        for _ in range(2):
            assert (await append(served, **named("order-1")))[0] == 200
        assert (await served.call("DELETE", "/v1/sessions/s"))[0] == 204
    assert upstream.told == [("s", "order-1", None, True)] * 2


async def test_a_publisher_of_an_activity_names_its_workflow(upstream: RecordingUpstream, served: Served) -> None:
    async def activity(**options: Any) -> None:
        async with SessionPublisher.from_within_activity(served.url, **options) as session:
            await session.topic("t").publish(1)

    def in_a_thread() -> None:
        with SyncSessionPublisher.from_within_activity(served.url, session="room") as session:
            session.topic("t").publish(1)

    running = ActivityEnvironment()
    workflow_id, namespace = running.info.workflow_id, running.info.namespace
    await running.run(activity)
    await asyncio.to_thread(ActivityEnvironment().run, in_a_thread)
    assert upstream.told == [(workflow_id, workflow_id, namespace, True), ("room", workflow_id, namespace, True)]
    await running.run(activity, session="silent", workflow=None, publisher="p")
    await running.run(activity, session="other", workflow="order-1", publisher="p")
    assert upstream.told[2:] == [("other", "order-1", namespace, True)]


async def test_a_service_may_name_one_and_it_is_named_whenever_it_connects(
    upstream: RecordingUpstream, served: Served
) -> None:
    async with SessionPublisher(served.url, session="s", workflow="order-1", namespace="shop") as session:
        await session.topic("t").publish(1)
    assert upstream.told == [("s", "order-1", "shop", True)]
    bad: list[Any] = [{"workflow": ""}, {"namespace": "shop"}, {"workflow": "order-1", "namespace": ""}]
    for odd in bad:
        with pytest.raises(RequestInvalidError, match="expected a workflow"):
            SessionPublisher(served.url, session="s", **odd)


async def test_what_was_spooled_names_it_too(upstream: RecordingUpstream, serve: Serve, tmp_path: Path) -> None:
    port, spool = free_port(), tmp_path / "spool"
    url = f"http://127.0.0.1:{port}"
    async with SessionPublisher(url, session="s", workflow="order-1", on_unavailable="spool", spool=spool) as session:
        await session.topic("t").publish(1)
    await serve(port=port)
    async with SessionPublisher(url, session="other", on_unavailable="spool", spool=spool):
        async with asyncio.timeout(60):
            while not upstream.told:
                await asyncio.sleep(0.01)
    assert upstream.told == [("s", "order-1", None, True)]
