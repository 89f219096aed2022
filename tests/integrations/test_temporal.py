"""`WakelinePlugin` on real workers: every activity has a session, and tells by itself how it goes."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import uuid
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowFailureError
from temporalio.converter import DataConverter, PayloadCodec
from temporalio.testing import ActivityEnvironment
from temporalio.worker import SharedStateManager, Worker

from tests.integrations import workflows
from tests.integrations.support import counting, events_of, messages, under
from tests.support import Served
from tests.tokens import SECRET
from wakeline.cli.processes import free_port
from wakeline.integrations.temporal import WakelinePlugin, current_session, current_sync_session

PATIENCE = 60


@asynccontextmanager
async def worker(client: Client, *plugins: WakelinePlugin) -> AsyncIterator[str]:
    """A worker with the plugins; gives its task queue."""
    queue = f"integrations-{uuid.uuid4().hex[:8]}"
    with ThreadPoolExecutor(4) as threads:
        async with Worker(
            client,
            task_queue=queue,
            workflows=[workflows.Runs, workflows.Hurries],
            activities=workflows.ACTIVITIES,
            activity_executor=threads,
            # However slow the machine is, no activity is taken for lost; and a cancellation comes soon all the same.
            max_heartbeat_throttle_interval=timedelta(milliseconds=200),
            plugins=plugins,
        ):
            yield queue


async def run(client: Client, queue: str, name: str, argument: Any = None, *, id: str = "") -> tuple[str, Any]:
    """Run one activity in a workflow; its id and what came of it."""
    id = id or f"{name}-{uuid.uuid4().hex[:8]}"
    async with asyncio.timeout(PATIENCE):
        return id, await client.execute_workflow(workflows.Runs.run, args=[name, argument], id=id, task_queue=queue)


async def runs_of(served: Served, session: str) -> list[dict[str, Any]]:
    """The runs of a session that there is; to ask for them is not to watch it."""
    status, state = await served.call("GET", f"/v1/sessions/{session}")
    assert status == 200, state
    runs: list[dict[str, Any]] = state["runs"]
    return runs


def states(events: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(told["attempt"], told["state"]) for told in under(events, "activity")]


@pytest.mark.parametrize("name", ["speak", "speak_in_a_thread"])
async def test_an_activity_publishes_with_the_session_that_it_has(client: Client, served: Served, name: str) -> None:
    async with worker(client, WakelinePlugin(served.url)) as queue:
        id, count = await run(client, queue, name, ["a", "b"])
        # Durable when the workflow has the result: nothing has to be waited for.
        events = await events_of(served, id)
    assert count == 2
    assert under(events, "word") == ["a", "b"]
    word = next(event for event in events if event["topic"] == "word")
    assert (word["activity"], word["attempt"]) == (name, 1)
    told = {"activity_type": name, "activity_id": name, "attempt": 1}
    assert under(events, "activity") == [{**told, "state": "started"}, {**told, "state": "completed"}]
    assert events[0]["topic"] == events[-1]["topic"] == "activity", "told before and after what the activity says"


async def test_an_activity_without_a_line_of_code_tells_how_it_goes(client: Client, served: Served) -> None:
    async with worker(client, WakelinePlugin(served.url)) as queue:
        id, _ = await run(client, queue, "quiet")
        assert states(await events_of(served, id)) == [(1, "started"), (1, "completed")]


@pytest.mark.parametrize("name", ["fail_once", "fail_once_in_a_thread"])
async def test_a_retry_takes_back_what_was_said_but_not_that_there_was_an_attempt(
    client: Client, served: Served, name: str
) -> None:
    async with worker(client, WakelinePlugin(served.url)) as queue:
        id, _ = await run(client, queue, name)
        events = await events_of(served, id)
    counts = counting(events)
    assert under(events, "word") == ["attempt 1", "attempt 2"]
    assert under(counts, "word") == ["attempt 2"]
    assert states(counts) == [(1, "started"), (1, "retrying"), (2, "started"), (2, "completed")]
    retrying = under(counts, "activity")[1]
    assert retrying["failure"] == {"message": "the first one fails", "type": "Flaky"}
    assert len({event["key"] for event in events if event["topic"] == "activity"}) == 1, "the latest stands for all"


async def test_a_failure_for_good_is_told_as_one(client: Client, served: Served) -> None:
    async with worker(client, WakelinePlugin(served.url)) as queue:
        with pytest.raises(WorkflowFailureError):
            await run(client, queue, "fail_for_good", id="for-good")
        with pytest.raises(WorkflowFailureError):
            await run(client, queue, "fail_always", id="always")
        for_good, always = await events_of(served, "for-good"), await events_of(served, "always")
    assert states(for_good) == [(1, "started"), (1, "failed")]
    assert under(for_good, "activity")[-1]["failure"] == {
        "message": "no such card",
        "type": "CardError",
        "cause": "4242",
    }
    assert states(always) == [
        (1, "started"),
        (1, "retrying"),
        (2, "started"),
        (2, "retrying"),
        (3, "started"),
        (3, "failed"),
    ]
    assert under(always, "activity")[-1]["failure"] == {"message": "again", "type": "ValueError"}


async def test_a_canceled_activity_is_told_as_canceled(client: Client, served: Served) -> None:
    async with worker(client, WakelinePlugin(served.url)) as queue, asyncio.timeout(PATIENCE):
        handle = await client.start_workflow(
            workflows.Runs.run, args=["wait_to_be_canceled", None], id="canceled", task_queue=queue
        )
        while not await events_of(served, "canceled"):
            await asyncio.sleep(0.01)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        assert states(await events_of(served, "canceled")) == [(1, "started"), (1, "canceled")]


async def test_an_attempt_that_timed_out_is_reported_as_a_retry(client: Client, served: Served) -> None:
    async with worker(client, WakelinePlugin(served.url)) as queue, asyncio.timeout(PATIENCE):
        starts = [
            client.start_workflow(
                workflows.Hurries.run, args=["slow_at_first", attempts], id=f"hurries-{attempts}", task_queue=queue
            )
            for attempts in (1, 2)
        ]
        gives_up, goes_on = await asyncio.gather(*starts)
        assert await goes_on.result() == "done"
        with pytest.raises(WorkflowFailureError):
            await gives_up.result()
        assert states(await events_of(served, goes_on.id)) == [
            (1, "started"),
            (1, "retrying"),
            (2, "started"),
            (2, "completed"),
        ]
        while len(told := under(await events_of(served, gives_up.id), "activity")) < 2:
            await asyncio.sleep(0.05)
    assert told[1]["state"] == "failed"
    assert told[1]["failure"]["type"] == "TimeoutError"


async def test_an_activity_that_completes_elsewhere_has_not_ended(client: Client, served: Served) -> None:
    async with worker(client, WakelinePlugin(served.url)) as queue:
        running = asyncio.create_task(run(client, queue, "complete_elsewhere", id="elsewhere"))
        async with asyncio.timeout(PATIENCE):
            while not (workflows.TOKENS and await events_of(served, "elsewhere")):
                await asyncio.sleep(0.01)
        await client.get_async_activity_handle(task_token=workflows.TOKENS.pop()).complete("done")
        assert await running == ("elsewhere", "done")
    assert states(await events_of(served, "elsewhere")) == [(1, "started")]


@pytest.mark.parametrize("name", ["quiet", "speak_in_a_thread"])
async def test_the_workflow_of_an_activity_is_followed_to_its_end_without_a_device(
    client: Client, serve: Any, name: str
) -> None:
    served = await serve(temporal=client.service_client.config.target_host)
    plugin = WakelinePlugin(served.url) if name == "quiet" else WakelinePlugin(served.url, report=None)
    async with worker(client, plugin) as queue:
        id, _ = await run(client, queue, name, ["a"])
        async with asyncio.timeout(PATIENCE):
            while [run["status"] for run in await runs_of(served, id)] != ["completed"]:
                await asyncio.sleep(0.02)
    assert [one["workflow_id"] for one in under(await events_of(served, id), "$run.closed")] == [id]


async def test_runs_of_one_session_do_not_replace_each_other_s_activities(client: Client, served: Served) -> None:
    async with worker(client, WakelinePlugin(served.url, session=lambda info: "chat")) as queue:
        for _ in range(2):
            await run(client, queue, "quiet")
        events = await events_of(served, "chat")
    assert states(events) == [(1, "started"), (1, "completed")] * 2
    assert len({event["key"] for event in events}) == 2


async def test_reports_may_have_another_topic_or_none(client: Client, served: Served) -> None:
    async with worker(client, WakelinePlugin(served.url, report="steps")) as queue:
        id, _ = await run(client, queue, "quiet")
    assert len(under(await events_of(served, id), "steps")) == 2
    async with worker(client, WakelinePlugin(served.url, report=None)) as queue:
        silent, _ = await run(client, queue, "quiet")
        said, _ = await run(client, queue, "speak", ["a"])
    assert await events_of(served, silent) == []
    assert under(await events_of(served, said), "word") == ["a"]


async def test_the_plugin_may_be_the_client_s(client: Client, served: Served) -> None:
    plugged = client.config()
    plugged["plugins"] = [WakelinePlugin(served.url)]
    async with worker(Client(**plugged)) as queue:
        id, _ = await run(client, queue, "speak", ["a"])
    assert states(await events_of(served, id)) == [(1, "started"), (1, "completed")]


class Backwards(PayloadCodec):
    """Hides payloads, a little."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload(metadata={"encoding": b"backwards"}, data=one.SerializeToString()[::-1]) for one in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload.FromString(one.data[::-1]) for one in payloads]


@pytest.mark.parametrize("name", ["fail_once", "speak_in_a_thread"])
async def test_what_the_worker_s_client_hides_is_hidden_here_too(client: Client, served: Served, name: str) -> None:
    hiding = client.config()
    hiding["data_converter"] = replace(client.data_converter, payload_codec=Backwards())
    async with worker(Client(**hiding), WakelinePlugin(served.url)) as queue:
        id, _ = await run(Client(**hiding), queue, name, ["secret"])
    shown = [event for event in await events_of(served, id) if not event["topic"].startswith("$")]
    assert {event["topic"] for event in shown} == {"word", "activity"}
    assert all("payload" in event and "data" not in event for event in shown)


async def test_what_devices_are_to_read_can_be_left_open(client: Client, served: Served) -> None:
    hiding = client.config()
    hiding["data_converter"] = replace(client.data_converter, payload_codec=Backwards())
    plugin = WakelinePlugin(served.url, data_converter=DataConverter.default)
    async with worker(Client(**hiding), plugin) as queue:
        id, _ = await run(Client(**hiding), queue, "speak", ["open"])
    events = await events_of(served, id)
    assert messages(events) == {"m": ("open", True)}
    assert states(events) == [(1, "started"), (1, "completed")]


async def test_a_gateway_that_is_away_does_not_hold_activities_up(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    patience = timedelta(milliseconds=100)
    with caplog.at_level(logging.WARNING, "wakeline.integrations"):
        async with worker(client, WakelinePlugin(nowhere, report_patience=patience)) as queue:
            for _ in range(5):
                _, result = await run(client, queue, "quiet")
                assert result == "done"
            assert len([record for record in caplog.records if "accepted no report" in record.message]) == 1
    assert any("were not delivered before the worker stopped" in record.message for record in caplog.records)


async def test_reports_go_on_when_the_gateway_is_back(client: Client, serve: Any) -> None:
    port = free_port()
    plugin = WakelinePlugin(f"http://127.0.0.1:{port}", report_patience=timedelta(milliseconds=100))
    async with worker(client, plugin) as queue:
        id, _ = await run(client, queue, "quiet")
        served = await serve(port=port)
        async with asyncio.timeout(PATIENCE):
            while len(await events_of(served, id)) < 2:
                await asyncio.sleep(0.05)
        assert states(await events_of(served, id)) == [(1, "started"), (1, "completed")]
        later, _ = await run(client, queue, "quiet")
        assert states(await events_of(served, later)) == [(1, "started"), (1, "completed")], "waited for again"


async def test_a_publisher_of_one_s_own_goes_beside_it(client: Client, served: Served) -> None:
    async with worker(client, WakelinePlugin(served.url)) as queue:
        id, _ = await run(client, queue, "publish_by_hand", served.url)
        assert under(await events_of(served, id), "word") == ["by hand"]


async def test_an_activity_that_publishes_without_a_token_fails(
    client: Client, serve: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("WAKELINE_TOKEN", raising=False)
    served = await serve(token_secret=SECRET)
    async with worker(client, WakelinePlugin(served.url)) as queue:
        with pytest.raises(WorkflowFailureError) as caught:
            await run(client, queue, "speak", ["a"])
        for _ in range(3):
            assert (await run(client, queue, "quiet"))[1] == "done"
    cause = caught.value.__cause__
    assert cause is not None
    assert "expected a token, got none" in str(cause.__cause__)
    assert len([message for message in caplog.messages if "could not be reported" in message]) == 1


async def test_an_activity_in_a_process_pool_raises_with_a_hint(client: Client, served: Served) -> None:
    queue = f"integrations-{uuid.uuid4().hex[:8]}"
    forked = multiprocessing.get_context("fork")
    with forked.Manager() as manager, ProcessPoolExecutor(1, mp_context=forked) as processes:
        async with Worker(
            client,
            task_queue=queue,
            workflows=[workflows.Runs],
            activities=[workflows.speak_in_a_process],
            activity_executor=processes,
            shared_state_manager=SharedStateManager.create_from_multiprocessing(manager),
            plugins=[WakelinePlugin(served.url)],
        ):
            for _ in range(2):
                id, said = await run(client, queue, "speak_in_a_process", served.url)
                assert len(said) == 2
                assert all("SyncSessionPublisher.from_within_activity" in one for one in said)
                assert under(await events_of(served, id), "word") == ["from a process"]


async def test_where_there_is_no_session_it_says_what_to_do(client: Client, served: Served) -> None:
    with pytest.raises(LookupError, match=r"plugins=\[WakelinePlugin"):
        await current_session()
    with pytest.raises(LookupError, match=r"plugins=\[WakelinePlugin"):
        ActivityEnvironment().run(current_sync_session)
    async with worker(client, WakelinePlugin(served.url)) as queue:
        _, said = await run(client, queue, "ask_for_the_wrong_one")
        assert "await current_session()" in said
        await run(client, queue, "keep_it")
        async with asyncio.timeout(PATIENCE):
            assert "this one has ended" in await workflows.KEPT.pop()
            await workflows.BEHIND.pop()
