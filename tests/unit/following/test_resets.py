"""The output and the inputs that a reset has undone, over the memory engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import msgspec
import pytest
from structlog.testing import CapturingLogger
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.api.history.v1 import HistoryEvent
from temporalio.service import RPCError, RPCStatusCode

from tests.unit.following.followed import World, run
from tests.unit.following.test_rests import parts_of
from wakeline.errors import AttemptFencedError
from wakeline.gateway.following.copying.copy import StreamCopy
from wakeline.gateway.following.copying.reader import Item, Polled
from wakeline.gateway.following.following import Subject
from wakeline.gateway.following.life.answers import Answer
from wakeline.gateway.following.telling import Teller
from wakeline.gateway.following.watching import past
from wakeline.gateway.following.watching.resets import undo
from wakeline.gateway.rules import InputRules
from wakeline.gateway.sessions import Intents, Run, Unread
from wakeline.streams.inputs import HEADER, LIFE_HEADER

FIRST = run("a")
AWAY = RPCError("the server is restarted", RPCStatusCode.UNAVAILABLE, b"")


class Stream:
    """Reads a stream of so many items."""

    by_update = False

    def __init__(self, said: int) -> None:
        self._said = said

    async def read(self, offset: int, *, closed: bool = False) -> Polled:
        data = Payload(metadata={"encoding": b"json/plain"}, data=b"1").SerializeToString()
        return Polled(Answer.READ, [Item(at, "said", data) for at in range(offset, self._said)], self._said, more=False)


class Page:
    """Answers a call for a history."""

    next_page_token = None

    def __init__(self, histories: Histories, run_id: str) -> None:
        self._histories, self._run_id = histories, run_id
        self.current_page: list[HistoryEvent] = []

    async def fetch_next_page(self) -> None:
        self._histories.calls[self._run_id] += 1
        if self._histories.failures:
            raise self._histories.failures.pop()
        self.current_page = self._histories.runs[self._run_id]

    async def __aiter__(self) -> AsyncIterator[HistoryEvent]:
        await self.fetch_next_page()
        for event in self.current_page:
            yield event


class Histories:
    """Temporal, with these histories; it fails so often first."""

    namespace, identity = "default", "gateway"

    def __init__(self, **runs: list[HistoryEvent]) -> None:
        self.runs = {FIRST.run_id: begun(FIRST.run_id)} | runs
        self.calls, self.failures = Counter[str](), list[Exception]()
        self.workflow_service = SimpleNamespace(signal_workflow_execution=AsyncMock())

    def get_workflow_handle(self, workflow_id: str, run_id: str) -> Any:
        return SimpleNamespace(fetch_history_events=lambda **_: Page(self, run_id))


def begun(
    run_id: str, *after: HistoryEvent, original: str = "", previous: str = "", received: bool = False, base: str = ""
) -> list[HistoryEvent]:
    """The events of a run: one by which a reset of `base` began if that is given."""
    first, reset = HistoryEvent(event_id=1), HistoryEvent(event_id=4)
    said = first.workflow_execution_started_event_attributes
    said.original_execution_run_id, said.continued_execution_run_id = original or run_id, previous
    if received:
        said.input.CopyFrom(Payloads(payloads=[Payload(data=b'{"base_offset": 0}')]))
    failed = reset.workflow_task_failed_event_attributes
    failed.cause, failed.base_run_id = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW, base
    return [first, *([reset] if base else []), *after]


def signalled(key: str, *, at: int) -> HistoryEvent:
    event = HistoryEvent(event_id=at)
    fields = event.workflow_execution_signaled_event_attributes.header.fields
    for name, value in ((HEADER, key), (LIFE_HEADER, "1")):
        fields[name].data = msgspec.json.encode(value)
    return event


def copy_of(world: World, run: Run, *, recorded: bool = True) -> StreamCopy:
    return StreamCopy(run, Teller("a", FIRST.run, world.accept), world.accept, world.runs, recorded=recorded)


def subject_of(world: World, run: Run, histories: Histories) -> Subject:
    world.temporal.client = cast(Any, histories)
    return Subject("a", run, parts_of(world, places=1))


async def read(copy: StreamCopy, said: int) -> None:
    await copy.begin()
    await copy.read(cast(Any, Stream(said)))


async def superseded(world: World) -> list[Any]:
    page = await world.engine.read("a", 0, before=100)
    events = [msgspec.json.decode(event.json()) for event in page.events]
    return [event["data"]["offsets"] for event in events if event["topic"] == "$attempt.superseded"]


async def test_output_is_superseded_also_if_the_run_after_a_reset_publishes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)
    await read(copy_of(world, FIRST), 2)
    after = msgspec.structs.replace(FIRST, run_id="next", stream_attempt=2)
    await read(copy_of(world, after), 0)
    await read(copy_of(world, after), 0)
    assert await superseded(world) == [[[0, 1]]]


async def test_a_stream_that_a_reset_has_undone_before_it_was_read_is_not_read_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)
    unread = Unread(FIRST.run_id, FIRST.run_id, 1)
    now = msgspec.structs.replace(FIRST, run_id="second", stream="second", unread=(unread,))
    await read(copy_of(world, now), 1)
    histories = Histories(
        second=begun("second", previous=FIRST.run_id), third=begun("third", original=FIRST.run_id, base=FIRST.run_id)
    )
    await undo(subject_of(world, now, histories), "third", output=True)
    with pytest.raises(AttemptFencedError):
        await read(copy_of(world, FIRST, recorded=False), 3)


async def test_a_reset_does_not_undo_the_output_of_a_run_that_had_ended_before_its_own_began(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)
    await read(copy_of(world, FIRST), 3)
    again = msgspec.structs.replace(FIRST, run="again", run_id="again", stream="again", chain=FIRST.run)
    histories = Histories(
        again=begun("again", original=FIRST.run_id), third=begun("third", original=FIRST.run_id, base="again")
    )
    await undo(subject_of(world, again, histories), "third", output=True)
    assert await superseded(world) == []


async def test_no_later_reset_undoes_the_output_of_an_earlier_run_of_the_ended_chain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)
    await read(copy_of(world, FIRST), 3)  # it continued as "second", without its stream; that one ended, and was reset
    histories = Histories(
        second=begun("second", previous=FIRST.run_id),
        again=begun("again", original="second", previous=FIRST.run_id),
        back=begun("back", original=FIRST.run_id, base=FIRST.run_id),
        third=begun("third", original=FIRST.run_id, base="back"),
    )
    again = msgspec.structs.replace(FIRST, run="again", run_id="again", stream="again", chain=FIRST.run)
    for now, then in (("again", "back"), ("back", "third")):
        present = msgspec.structs.replace(again, run_id=now)
        await undo(subject_of(world, present, histories), then, output=True)
    assert await superseded(world) == []


async def test_a_stream_that_the_run_that_was_reset_had_received_is_superseded_under_its_first_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)
    await read(copy_of(world, FIRST), 3)
    third = msgspec.structs.replace(FIRST, run_id="third", stream="third")
    histories = Histories(
        second=begun("second", previous=FIRST.run_id, received=True),
        third=begun("third", previous="second"),
        again=begun("again", original="second", base="second"),
    )
    await undo(subject_of(world, third, histories), "again", output=True)
    assert await superseded(world) == [[[0, 2]]]


async def test_a_stream_that_a_reset_has_begun_again_is_superseded_under_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)
    # The ended run was reset as FIRST, and that as "again"; this one continued as "second", without its stream.
    await read(copy_of(world, FIRST), 2)
    second = msgspec.structs.replace(
        FIRST, run_id="second", stream="second", chain="ended", reset_streams={"again": FIRST.run_id}
    )
    histories = Histories(
        **{FIRST.run_id: begun(FIRST.run_id, original="ended")},
        second=begun("second", previous="again"),
        again=begun("again", original="ended"),
        third=begun("third", original="ended", base="again"),
    )
    await undo(subject_of(world, second, histories), "third", output=True)
    assert await superseded(world) == [[[0, 1]]]


async def test_each_history_is_read_once_whenever_temporal_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    histories = Histories(next=begun("next", original=FIRST.run_id, base=FIRST.run_id))
    subject = subject_of(World(monkeypatch), FIRST, histories)
    await undo(subject, "next", output=True)
    once, histories.calls = histories.calls, Counter()
    histories.failures = [AWAY] * 5
    await undo(subject, "next", output=True)
    assert histories.calls.total() == once.total() + 5


async def test_a_reset_that_temporal_does_not_answer_is_logged_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    log, histories = CapturingLogger(), Histories()
    histories.failures = [ValueError("enough"), *[AWAY] * 11]
    monkeypatch.setattr(past, "_log", log)
    with pytest.raises(ValueError, match="enough"):
        await undo(subject_of(World(monkeypatch), FIRST, histories), "next", output=True)
    first, *_, eleventh = log.calls
    assert [call for call in log.calls if call.method_name == "warning"] == [first, eleventh]
    assert (len(log.calls), first.kwargs["session"], first.kwargs["run"]) == (11, "a", "run-of-a")


@pytest.mark.parametrize("output", [True, False])
async def test_an_input_after_the_reset_point_that_the_new_run_does_not_have_is_sent_again_and_not_after_a_refusal(
    monkeypatch: pytest.MonkeyPatch, output: bool
) -> None:
    signals = [signalled("kept", at=3), signalled("applied", at=5), signalled("undone", at=6)]
    histories = Histories(
        **{
            FIRST.run_id: begun(FIRST.run_id, *signals),
            "next": begun("next", signalled("applied", at=5), original=FIRST.run_id, base=FIRST.run_id),
        }
    )
    refusal = RPCError("the workflow may not be signalled", RPCStatusCode.FAILED_PRECONDITION, b"")
    signal = histories.workflow_service.signal_workflow_execution = AsyncMock(side_effect=[refusal, None])
    world = World(monkeypatch, inputs=InputRules(after_reset="send"))
    subject = subject_of(world, FIRST, histories)
    if not output:
        await world.runs.put("a", msgspec.structs.replace(FIRST, status="completed"))
        again = msgspec.structs.replace(FIRST, run="next", run_id="next", stream="next", chain=FIRST.run)
        subject = subject_of(world, again, histories)
    find = AsyncMock(return_value=SimpleNamespace(life="1"))
    monkeypatch.setattr(Intents, "find", find)
    with pytest.raises(RPCError, match="may not be signalled"):
        await undo(subject, "next", output=output)
    assert [call.args for call in find.call_args_list] == [("a", "undone")]
    assert signal.call_count == 1
