"""One run's follower: what is told of it in its turn, and before."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest

from tests.unit.following.followed import World, run, steps
from tests.unit.following.test_rests import parts_of
from wakeline.gateway.following.copying.reader import StreamReader
from wakeline.gateway.following.follower import Follower
from wakeline.gateway.following.following import Subject
from wakeline.gateway.following.life import effects as do
from wakeline.gateway.following.life.reports import over
from wakeline.gateway.following.observing import Observer
from wakeline.gateway.following.watching.state import StateWatch
from wakeline.gateway.following.watching.watch import RunWatch
from wakeline.gateway.sessions import RunState


async def test_what_a_run_waits_for_is_told_again_in_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async def follow(state: StateWatch) -> None:
        activities = {"1": {"activity": "1", "attempt": 2, "state": "retrying"}}
        await state._report(RunState(activities, {"for": "input"}, "next/7/0/0"), {"1": 5}, {})
        await asyncio.Event().wait()

    monkeypatch.setattr(StateWatch, "follow", follow)
    world = World(monkeypatch)
    subject = Subject("a", run("a"), parts_of(world, places=1))
    observer = Observer(subject)
    observer.attention.set(closely=True)
    await observer.report_state_of("next")
    await steps()
    await observer.report_state_of("")
    changes: dict[str, Any] = {"run_id": "next", "waiting": None, "retrying": {}, "failed": {}}
    await subject.append("continued:next", *over(subject.run))
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


async def test_an_activity_of_a_run_that_has_just_continued_has_its_runs_name(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    follower = Follower("a", await world.runs.add("a", run("a")), parts_of(world, places=1))
    assert await world.runs.names.find("a", "next") == "next"
    await follower._execute(do.Expect("continued:next", {"run_id": "next"}))  # reported, and not yet in the record
    assert await world.runs.names.find("a", "next") == "run-of-a"
