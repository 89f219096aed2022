"""Requests for input on every engine: a crash at any point leaves one outcome, which all records come to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from tests.support import publish
from wakeline.errors import (
    AlreadyResolvedError,
    ClaimRequiredError,
    RequestConflictError,
    RequestNotFoundError,
    SessionClosedError,
    StorageFailedError,
)
from wakeline.gateway.delivery import Accept
from wakeline.gateway.inputs import Inputs
from wakeline.gateway.log import Append, Engine
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.requests import Answer, Asked, Claim, Person, Requests
from wakeline.gateway.sessions import InputRequest, InputRequests, Intents, Run, Runs, key_hash
from wakeline.gateway.settings import Settings

ALICE, BOB = Person("alice"), Person("bob")


class KilledError(Exception):
    """The gateway ends here."""


class Cut(InputRequests):
    """Records that end the gateway before they are written, as `before` says."""

    before = ""

    async def create(self, request: InputRequest) -> InputRequest:
        created = await super().create(request)
        if self.before == "append":
            raise KilledError
        return created

    async def put(self, request: InputRequest) -> None:
        if self.before in ("put", f"put of {request.session}"):
            raise KilledError
        await super().put(request)

    async def finish(self, request: InputRequest) -> None:
        if self.before == "finish":
            raise KilledError
        await super().finish(request)


def requests(engine: Engine, before: str = "", ownership: Ownership | None = None) -> Requests:
    records = Cut(engine)
    records.before = before
    ownership = ownership or Ownership(engine, 10.0, shared=engine.shared)
    return Requests(records, engine, Accept(engine), ownership, Settings(), Metrics(), Runs(engine).names)


@asynccontextmanager
async def running(engine: Engine, before: str = "") -> AsyncIterator[Requests]:
    """Close expired requests and finish closed ones, as the gateway that owns all sessions does."""
    ownership = Ownership(engine, 10.0, shared=engine.shared)
    await ownership.start()
    found = requests(engine, before, ownership)
    await found.start()
    try:
        yield found
    finally:
        await found.stop()
        await ownership.stop()


def answer(payload: Any) -> Answer:
    return Answer(payload=msgspec.Raw(msgspec.json.encode(payload)))


async def outcome(engine: Engine) -> Any:
    resolved = (await requests(engine).find("s", "r")).resolved
    return None if resolved is None else (resolved.status, resolved.by)


@pytest.mark.parametrize("before", ["put", "finish"])
async def test_an_answer_counts_although_its_gateway_ends_before_it_is_recorded(engine: Engine, before: str) -> None:
    await requests(engine).ask("s", Asked(id="r", reason="approval"), None)
    with pytest.raises(KilledError):
        await requests(engine, before).answer("s", "r", answer("yes"), ALICE)
    with pytest.raises(AlreadyResolvedError):
        await requests(engine).answer("s", "r", answer("no"), BOB)
    assert (await requests(engine).answer("s", "r", answer("yes"), ALICE)).status == "resolved"
    assert await outcome(engine) == ("resolved", "alice")
    assert await requests(engine).open("s") == ([], None)


@pytest.mark.parametrize("write", ["put", "finish"])
async def test_an_answer_whose_record_cannot_be_written_is_recorded_soon(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    """Nobody reads the request again, and no gateway is started."""
    async with running(engine) as found:
        await found.ask("s", Asked(id="r", reason="approval"), None)
        works = getattr(InputRequests, write)

        async def fails(self: InputRequests, request: InputRequest) -> None:
            monkeypatch.setattr(InputRequests, write, works)
            raise StorageFailedError("the store is away for a moment")

        monkeypatch.setattr(InputRequests, write, fails)
        with pytest.raises(StorageFailedError):
            await found.answer("s", "r", answer("yes"), ALICE)
        async with asyncio.timeout(60):
            while await InputRequests(engine).count_open("s") != (0, 0):
                await asyncio.sleep(0.05)
    assert await outcome(engine) == ("resolved", "alice")


async def test_reading_alone_finds_what_a_gateway_did_not_record(engine: Engine) -> None:
    await requests(engine).ask("s", Asked(id="r", reason="approval"), None)
    with pytest.raises(KilledError):
        await requests(engine, "put").answer("s", "r", answer("yes"), ALICE)
    assert await requests(engine).open("s") == ([], None)
    assert await outcome(engine) == ("resolved", "alice")


async def test_a_request_that_was_not_appended_is_appended_when_it_is_read(engine: Engine) -> None:
    with pytest.raises(KilledError):
        await requests(engine, "put").ask("s", Asked(id="r", reason="approval"), None)
    ((listed,), _) = await requests(engine).open("s")
    assert listed.sequence == 1
    page = await engine.read("s", 0, before=10)
    assert [event.topic for event in page.events] == ["$input.requested"]


@pytest.mark.parametrize("act", ["answer", "claim", "cancel"])
async def test_a_request_is_in_the_log_before_what_follows_it(engine: Engine, act: str) -> None:
    with pytest.raises(KilledError):
        await requests(engine, "append").ask("s", Asked(id="r", reason="read_file", kind="tool"), None)
    if act == "answer":
        with pytest.raises(ClaimRequiredError):
            await requests(engine).answer("s", "r", answer("yes"), ALICE)
    elif act == "claim":
        await requests(engine).claim("s", "r", Claim(device="laptop"), ALICE)
    else:
        await requests(engine).cancel("s", "r", "alice")
    page = await engine.read("s", 0, before=10)
    assert page.events[0].topic == "$input.requested"


async def test_a_request_that_cannot_be_recorded_hinders_no_other(engine: Engine) -> None:
    with pytest.raises(KilledError):
        await requests(engine, "append").ask("s", Asked(id="r", reason="approval", expires_in=0.1), None)
    async with running(engine, "put of s") as found:  # it reads session s before session z
        await found.ask("z", Asked(id="r", reason="approval", expires_in=0.1), None)
        async with asyncio.timeout(60):
            while len((await engine.read("z", 0, before=10)).events) < 2:
                await asyncio.sleep(0.02)


async def test_an_answer_that_retention_has_removed_before_it_was_recorded_is_not_found(engine: Engine) -> None:
    await requests(engine).ask("s", Asked(id="r", reason="approval"), None)
    with pytest.raises(KilledError):
        await requests(engine, "put").answer("s", "r", answer("yes"), ALICE)
    state = await engine.state("s")
    assert state is not None
    while await engine.trim("s", state.next_offset, epoch=state.epoch) < state.next_offset:
        pass
    with pytest.raises(RequestNotFoundError):
        await requests(engine).find("s", "r")
    assert await requests(engine).open("s") == ([], None)


async def test_a_request_whose_session_was_closed_before_it_was_appended_hinders_no_other(engine: Engine) -> None:
    with pytest.raises(KilledError):
        await requests(engine, "append").ask("s", Asked(id="r", reason="approval", expires_in=0.1), None)
    await engine.append(Append("s", (), close=True))
    assert [request.id async for request in InputRequests(engine).open()] == ["r"]

    async def opened(session: str) -> int:
        return (await InputRequests(engine).count_open(session))[0]

    with capture_logs() as logs:
        async with running(engine) as found:  # it reads session s before session z
            await found.ask("z", Asked(id="r", reason="approval", expires_in=0.1), None)
            async with asyncio.timeout(60):
                while len((await engine.read("z", 0, before=10)).events) < 2 or await opened("s"):
                    await asyncio.sleep(0.02)
            assert await found.open("s") == ([], None)
            with pytest.raises(SessionClosedError):
                await found.ask("s", Asked(id="r", reason="approval"), None)
    assert [log["event"] for log in logs] == []


@pytest.mark.parametrize("was_answered", [False, True])
async def test_a_request_that_a_deletion_has_left_is_none_of_the_next_life(engine: Engine, was_answered: bool) -> None:
    """The gateway that deleted the session is not done yet, or was killed meanwhile."""
    asked = Asked(id="r", reason="approval")
    await requests(engine).ask("s", asked, None)
    if was_answered:
        await requests(engine).answer("s", "r", answer(1), ALICE)
    assert await engine.delete_session("s")
    life = (await publish(engine, "s", 1)).epoch
    with pytest.raises(RequestNotFoundError):
        await requests(engine).find("s", "r")
    with pytest.raises(RequestNotFoundError):
        await requests(engine).answer("s", "r", answer(1), ALICE)
    again = await requests(engine).ask("s", asked, None)
    assert (again.epoch, again.status) == (life, "open")
    await requests(engine).answer("s", "r", answer(2), BOB)
    assert await outcome(engine) == ("resolved", "bob")


async def test_a_workflow_s_stream_cancels_the_requests_of_its_run_alone(engine: Engine) -> None:
    asked, cancel = b'{"id":"r","reason":"approval"}', b'{"cancel":"r"}'
    assert await requests(engine).ask_from_stream("s", None, "run-1", asked)
    await requests(engine).ask("s", Asked(id="of a service", reason="approval"), None)
    assert not await requests(engine).ask_from_stream("s", None, "run-2", cancel)
    assert not await requests(engine).ask_from_stream("s", None, "run-1", b'{"cancel":"of a service"}')
    assert {request.id for request in (await requests(engine).open("s"))[0]} == {"r", "of a service"}
    for _ in range(2):
        assert await requests(engine).ask_from_stream("s", None, "run-1", cancel)
    assert await outcome(engine) == ("cancelled", None)
    assert await requests(engine).ask_from_stream("s", None, "run-1", b'{"cancel":"unknown"}')


class NoTemporal:
    """A connection to a Temporal that never answers, and nobody who follows workflows."""

    def up(self) -> bool:
        return False

    def calm(self) -> bool:
        return False

    async def until_calm(self) -> None:
        await asyncio.Event().wait()

    @property
    def main(self) -> NoTemporal:
        return self

    converter = None


async def test_a_refused_request_is_reported_although_the_gateway_ends_at_once(engine: Engine) -> None:
    await publish(engine, "s", 1)
    await Runs(engine).put("s", Run("w", "run-1", "run-1", "run-1", "W", "2026-11-30T00:00:00.000Z"))
    unreached: Any = NoTemporal()
    ownership = Ownership(engine, 10.0, shared=engine.shared)
    inputs = Inputs(
        Intents(engine),
        engine,
        Accept(engine),
        Runs(engine),
        unreached,
        unreached,
        ownership,
        Settings(),
        Metrics(),
    )
    found = requests(engine)
    await found.start(inputs)
    assert not await found.ask_from_stream("s", None, "run-1", b'{"id":"r","reason":7}')
    # The follower stores that it is past the request, and the gateway is killed.
    (left,) = [found.intent async for found in Intents(engine).unfinished()]
    assert (left.kind, left.name, left.run) == ("signal", "wakeline_answer", "run-1")
    assert msgspec.json.decode(left.args)[0]["status"] == "refused"
    await found.stop()
    await inputs.stop()


async def test_a_request_of_an_older_gateway_is_the_same_request(engine: Engine) -> None:
    """Its digest is that of the whole body, with the Temporal run and the activity that asked."""
    asked = Asked(id="r", reason="approval", run="run-1", activity="ask")
    first = await requests(engine).ask("s", asked, "run-1")
    record = await engine.get_records([key := f"requests.open/s\x1f{key_hash('r')}"])
    body = msgspec.json.encode(msgspec.to_builtins(asked), order="sorted")
    older = msgspec.structs.replace(first, asked=sha256(body).hexdigest())
    await engine.put_record(key, msgspec.json.encode(older), revision=record[key].revision)
    for activity in ("ask", "ask-again"):
        again = msgspec.structs.replace(asked, activity=activity, wait=1.0)
        assert await requests(engine).ask("s", again, "run-1") == older
    with pytest.raises(RequestConflictError):
        await requests(engine).ask("s", msgspec.structs.replace(asked, reason="payment"), "run-1")


async def test_a_request_is_that_of_a_run_which_was_known_by_the_id_of_a_later_one(engine: Engine) -> None:
    """The first ask came before the gateway knew that `later` continues `first`."""
    asked = Asked(id="r", reason="approval", run="later")
    opened = await requests(engine).ask("s", asked, "later")
    with pytest.raises(RequestConflictError, match="was asked by later"):
        await requests(engine).ask("s", msgspec.structs.replace(asked, run="first"), "first")
    await Runs(engine).put("s", Run("w", "first", "later", "later", "W", "2026-11-30T00:00:00.000Z"))
    assert await requests(engine).ask("s", msgspec.structs.replace(asked, run="first"), "first") == opened
    with pytest.raises(RequestConflictError, match="was asked by later"):
        await requests(engine).ask("s", msgspec.structs.replace(asked, run="other"), "other")


async def test_a_request_is_the_same_for_each_temporal_run_and_activity_of_a_run(engine: Engine) -> None:
    asked = Asked(id="r", reason="approval", run="second", activity="ask")
    opened = await requests(engine).ask("s", asked, "first")
    again = msgspec.structs.replace(asked, run="third", activity="ask-again")
    assert await requests(engine).ask("s", again, "first") == opened
