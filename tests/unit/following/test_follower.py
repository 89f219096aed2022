"""One run's follower: what is told of it in its turn, and before."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import msgspec
import pytest
from structlog.testing import CapturingLogger
from temporalio.service import RPCError, RPCStatusCode

from tests.unit.following.followed import World, run, steps
from tests.unit.following.test_rests import parts_of
from wakeline.gateway.following import performing
from wakeline.gateway.following.copying.reader import StreamReader
from wakeline.gateway.following.following import Subject
from wakeline.gateway.following.life.effects import Append, Supersede
from wakeline.gateway.following.life.reports import over
from wakeline.gateway.following.observing import Observer
from wakeline.gateway.following.performing import Performer
from wakeline.gateway.following.watching.resets import Key, Reset, Signal
from wakeline.gateway.following.watching.state import StateWatch
from wakeline.gateway.following.watching.watch import RunWatch
from wakeline.gateway.log import NewSession
from wakeline.gateway.rules import InputRules
from wakeline.gateway.sessions import RunState


async def test_what_a_run_waits_for_is_told_again_in_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async def follow(state: StateWatch) -> None:
        activities = {"1": {"activity": "1", "attempt": 2, "state": "retrying"}}
        await state._tell(RunState(activities, {"for": "input"}, "next/7/0/0"), {"1": 5}, {})
        await asyncio.Event().wait()

    monkeypatch.setattr(StateWatch, "follow", follow)
    world = World(monkeypatch)
    subject = Subject("a", run("a"), parts_of(world, places=1))
    observer, performer = Observer(subject), Performer(subject)
    observer.attention.set(closely=True)
    await observer.report_state_of("next")
    await steps()
    await observer.report_state_of("")
    changes: dict[str, Any] = {"run_id": "next", "waiting": None, "retrying": {}, "failed": {}}
    await performer.append(Append("continued:next", tuple(over(subject.run))))
    await subject.copy.change(**changes)
    for _ in range(2):  # that it is told twice by those whose turn it is makes no difference
        watch, reader = (
            RunWatch(subject, "next", observer.attention),
            StreamReader(cast(Any, world.temporal), "a", "next"),
        )
        state = StateWatch(subject, "next", watch, reader)
        looking = asyncio.create_task(observer._look_on(state))
        await steps()
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    page = await world.engine.read("a", 0, before=100)
    told = [msgspec.json.decode(event.json()) for event in page.events]
    assert [event["data"]["for"] for event in told if event["topic"] == "$run.waiting"] == ["input", None, "input"]
    retrying = [event["data"] for event in told if event["topic"] == "$activity.retrying"]
    assert ["over" in data for data in retrying] == [False, True, False]


async def test_a_reset_is_read_on_where_temporal_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    answers = {"reset_of": Reset("next", "", 0, ()), "supersede_undone": None, "undone_inputs": {Key("i", "1"): None}}

    def failing_once(name: str) -> Any:
        async def call(*_: Any, **__: Any) -> Any:
            calls.append(name)
            if calls.count(name) == 1:
                raise RPCError("the server is restarted", RPCStatusCode.UNAVAILABLE, b"")
            return answers[name]

        return call

    for name in answers:
        monkeypatch.setattr(performing, name, failing_once(name))
    world = World(monkeypatch)
    await world.engine.create_session(NewSession("a"))
    await Performer(Subject("a", run("a"), parts_of(world, places=1))).supersede(Supersede("next", output=True))
    assert calls == [name for name in answers for _ in range(2)]


async def test_a_reset_that_temporal_does_not_answer_is_logged_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    world, log, calls = World(monkeypatch), CapturingLogger(), 0

    async def reset_of(*_: Any) -> Reset:
        nonlocal calls
        calls += 1
        if calls <= 11:
            raise RPCError("the server is restarted", RPCStatusCode.UNAVAILABLE, b"")
        raise ValueError("enough")

    monkeypatch.setattr(performing, "reset_of", reset_of)
    monkeypatch.setattr(performing, "_log", log)
    with pytest.raises(ValueError, match="enough"):
        await Performer(Subject("a", run("a"), parts_of(world, places=1))).supersede(Supersede("next", output=True))
    first, *_, eleventh = log.calls
    assert [call for call in log.calls if call.method_name == "warning"] == [first, eleventh]
    assert (len(log.calls), first.kwargs["session"], first.kwargs["run"]) == (11, "a", "run-of-a")


async def test_an_input_that_a_reset_has_undone_is_not_sent_again_after_a_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusal = RPCError("the workflow may not be signalled", RPCStatusCode.FAILED_PRECONDITION, b"")
    answers = {"reset_of": Reset("next", "", 0, ()), "undone_inputs": {Key("i", "1"): Signal(signal_name="say")}}
    fakes = {name: AsyncMock(return_value=answer) for name, answer in answers.items()}
    fakes["supersede_undone"], fakes["send_again"] = AsyncMock(), AsyncMock(side_effect=[refusal, True])
    for name, fake in fakes.items():
        monkeypatch.setattr(performing, name, fake)
    parts = parts_of(World(monkeypatch, inputs=InputRules(after_reset="send")), places=1)
    monkeypatch.setattr(parts.intents, "find", AsyncMock(return_value=SimpleNamespace(life="1")))
    with pytest.raises(RPCError, match="may not be signalled"):
        await Performer(Subject("a", run("a"), parts)).supersede(Supersede("next", output=True))
