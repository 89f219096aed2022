"""What a gateway does with inputs that it cannot carry on."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest
from structlog.testing import capture_logs
from temporalio.service import RPCError, RPCStatusCode

from tests.support import publish
from tests.unit.inputs.test_intents import intent
from wakeline.errors import UnavailableError
from wakeline.gateway.delivery import Accept
from wakeline.gateway.inputs import Inputs, carrying
from wakeline.gateway.inputs.calls import unanswered
from wakeline.gateway.inputs.pending import Pending
from wakeline.gateway.inputs.steps import Failing, Outcome, Seen, StillOpen, Unanswered
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.rules import InputRules
from wakeline.gateway.sessions import Intents, Runs
from wakeline.gateway.settings import Settings
from wakeline.retry import Backoff


def inputs_of(engine: MemoryEngine) -> Inputs:
    """The inputs of a gateway that follows no namespace."""
    return Inputs(
        Intents(engine),
        engine,
        Accept(engine),
        Runs(engine),
        cast(Any, {}),
        cast(Any, None),
        Ownership(engine, 1.0, shared=False),
        Settings(),
        Metrics(),
    )


async def test_an_input_of_a_namespace_that_is_no_longer_followed_waits_quietly() -> None:
    engine = MemoryEngine()
    epoch = (await publish(engine, "s", 1)).epoch
    waiting = intent(epoch=epoch, namespace="gone")
    await Intents(engine).create(waiting)
    inputs = inputs_of(engine)
    with capture_logs() as logs:
        await inputs.start()
        async with asyncio.timeout(60):
            while not logs:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        await inputs.stop()
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert "gone" in logs[0]["error"]
    assert [found.intent async for found in Intents(engine).unfinished()] == [waiting]


class Failures:
    """A workflow whose tasks fail, and a clock that moves by the pauses alone.

    Attributes:
        shown: What the run's history shows at each look at it; the update has not been accepted after the last one.
        sent: When the update was sent.
    """

    def __init__(self, *shown: Seen) -> None:
        self.shown = list(shown)
        self.sent: list[float] = []
        self.now = 1.0

    async def send(self, *_: object) -> Seen:
        self.sent.append(self.now)
        return Failing()

    async def look(self, *_: object) -> Seen:
        return self.shown.pop(0) if self.shown else StillOpen()

    def monotonic(self) -> float:
        return self.now

    async def rejected(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """Carry an update to its end; return the failure with which it is rejected."""

        async def wait(backoff: Backoff, least: float = 0.0) -> None:
            self.now += least + backoff.pause()

        monkeypatch.setattr(Backoff, "wait", wait)
        monkeypatch.setattr(carrying, "time", self)
        monkeypatch.setattr(carrying, "send", self.send)
        monkeypatch.setattr(carrying, "look", self.look)
        engine = MemoryEngine()
        epoch = (await publish(engine, "s", 1)).epoch
        carrier = carrying.Carrier(
            Intents(engine),
            engine,
            Accept(engine),
            cast(Any, Nothing()),
            cast(Any, Nothing()),
            metrics := Metrics(),
            Pending(InputRules(), metrics),
        )
        update = intent(epoch=epoch)
        await Intents(engine).create(update)
        settled = await carrier.carry(update)
        assert settled is not None
        assert settled.status == "rejected"
        failure: dict[str, Any] = msgspec.json.decode(settled.data)["failure"]
        return failure


class Away:
    """A connection to a Temporal that is away until it is `up`."""

    def __init__(self) -> None:
        self.is_up = asyncio.Event()
        self.sent = 0

    def up(self) -> bool:
        return self.is_up.is_set()

    async def until_up(self) -> None:
        await self.is_up.wait()

    async def send(self, *_: object) -> Seen:
        self.sent += 1
        return Outcome("completed") if self.up() else Unanswered()

    def connection(self, _: str) -> Away:
        return self

    def nudge(self, *_: object) -> None:
        return None


async def test_inputs_wait_for_temporal_and_do_not_call_it_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    away, engine = Away(), MemoryEngine()
    monkeypatch.setattr(carrying, "send", away.send)
    epoch = (await publish(engine, "s", 1)).epoch
    carrier = carrier_of(engine, away)
    waiting = intent(epoch=epoch)
    await Intents(engine).create(waiting)
    carried = carrier.carry(waiting)
    async with asyncio.timeout(60):
        while not away.sent:
            await asyncio.sleep(0.01)
    await asyncio.wait([carried], timeout=1)
    assert (carried.done(), away.sent) == (False, 1)
    away.is_up.set()
    settled = await asyncio.wait_for(carried, 60)
    assert settled is not None
    assert settled.status == "completed"


class Denies(Away):
    """A Temporal that answers, and does not let the gateway send inputs until somebody allows it."""

    def __init__(self, denials: int) -> None:
        super().__init__()
        self.is_up.set()
        self.denials = denials

    async def send(self, *_: object) -> Seen:
        self.sent += 1
        denied = RPCError("Request unauthorized.", RPCStatusCode.PERMISSION_DENIED, b"")
        return unanswered(denied) if self.sent <= self.denials else Outcome("completed")


async def test_an_input_that_temporal_does_not_permit_is_logged_once_and_waits_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    denies, engine, pauses = Denies(12), MemoryEngine(), list[float]()

    async def wait(backoff: Backoff, least: float = 0.0) -> None:
        pauses.append(backoff.pause())

    monkeypatch.setattr(Backoff, "wait", wait)
    monkeypatch.setattr(carrying, "send", denies.send)
    carrier = carrier_of(engine, denies)
    epoch = (await publish(engine, "s", 1)).epoch
    inputs = [intent(epoch=epoch, key=key) for key in ("k1", "k2")]
    for each in inputs:
        await Intents(engine).create(each)
    with capture_logs() as logs:
        for settled in await asyncio.gather(*map(carrier.carry, inputs)):
            assert settled is not None
            assert settled.status == "completed"
    warned = [log for log in logs if log["log_level"] == "warning"]
    assert [(log["session"], log["status"]) for log in warned] == [("s", "PERMISSION_DENIED")]
    assert "Allow the gateway" in warned[0]["hint"]
    assert 2 < max(pauses) <= 30


class Forgets(Intents):
    """Intents of a store that cannot forget an input at the first attempt."""

    attempts = 0

    async def forget(self, session: str, epoch: str) -> None:
        self.attempts += 1
        if self.attempts == 1:
            raise UnavailableError("the store is away")
        await super().forget(session, epoch)


async def test_an_input_of_a_deleted_session_is_forgotten_once_the_store_is_back() -> None:
    engine = MemoryEngine()
    intents = Forgets(engine)
    epoch = (await publish(engine, "s", 1)).epoch
    await intents.create(intent(epoch=epoch))
    await engine.delete_session("s")
    assert await carrier_of(engine, Away(), intents).carry(intent(epoch=epoch)) is None
    assert [found async for found in intents.unfinished()] == []


def carrier_of(engine: MemoryEngine, away: Away, intents: Intents | None = None) -> carrying.Carrier:
    metrics = Metrics()
    return carrying.Carrier(
        intents or Intents(engine),
        engine,
        Accept(engine),
        cast(Any, away),
        cast(Any, away),
        metrics,
        Pending(InputRules(), metrics),
    )


class Nothing:
    """Neither Temporal nor followers."""

    def connection(self, _: str) -> None:
        return None

    def nudge(self, *_: object) -> None:
        return None


async def test_an_update_of_a_failing_workflow_is_sent_ever_more_seldom_and_then_rejected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = Failures()
    assert (await failures.rejected(monkeypatch))["type"] == "UpdateNotAccepted"
    assert len(failures.sent) <= 18
    assert 600 <= failures.now <= 600 + 121


async def test_an_update_that_a_failing_workflow_has_accepted_waits_for_the_repaired_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = Failures(
        StillOpen(begun=True), StillOpen(begun=True), Outcome("rejected", {"failure": {"type": "Mine"}})
    )
    assert await failures.rejected(monkeypatch) == {"type": "Mine"}
    assert failures.now > 600
