"""On every engine: an outcome is remembered for a time, and then its id is that of another input or request."""

from __future__ import annotations

import time

import msgspec
import pytest

from tests.contract.test_requests import ALICE, answer, requests
from tests.support import everything
from tests.unit.inputs.test_intents import intent, settled
from wakeline.errors import RequestConflictError, RequestNotFoundError
from wakeline.events import compose, timestamp
from wakeline.gateway.delivery import Accept
from wakeline.gateway.log import Engine, NewSession, Publication
from wakeline.gateway.requests import Asked
from wakeline.gateway.sessions import InputRequests, Intent, Intents, Remembered, Settled, key_hash

DAY = 86_400.0
PAY, OTHER = Asked(id="r", reason="approval"), Asked(id="r", reason="form")


async def after(engine: Engine, days: float, *, owned: bool = True) -> None:
    """Forget what is due so many days from now."""
    await Remembered(engine, 7 * DAY, lambda _: owned, lambda: time.time() + days * DAY).sweep()


async def topics(engine: Engine, session: str) -> list[str]:
    return [event.topic for event in await everything(engine, session)]


async def keys(engine: Engine) -> set[str]:
    return {record.key.split("/")[0] for record in await engine.records("")} - {"leases"}


async def completed(engine: Engine, session: str = "s", key: str = "k") -> Intent:
    """Record an input and its outcome, with their events."""
    epoch = (await engine.create_session(NewSession(session)))[0].epoch
    made = intent(session, key, epoch)
    await Intents(engine).create(made)
    for sequence, topic in enumerate(("$input.accepted", "$input.completed")):
        publication = Publication(f"input:{key_hash(key)}", sequence=sequence)
        event = compose(topic, b"{}", time=timestamp())
        await Accept(engine).append(session, (event,), publication, epoch=epoch)
    done = msgspec.structs.replace(settled(epoch=epoch), closed_at=timestamp())
    await Intents(engine).finish(made, await Intents(engine).settle(made, done))
    return made


async def test_a_request_is_forgotten_some_days_after_it_was_closed(engine: Engine) -> None:
    await requests(engine).ask("s", PAY, None)
    await after(engine, 30)
    await requests(engine).answer("s", "r", answer("yes"), ALICE)
    await after(engine, 6.9)
    await after(engine, 30, owned=False)
    assert (await requests(engine).find("s", "r")).status == "resolved"
    with pytest.raises(RequestConflictError):
        await requests(engine).ask("s", OTHER, None)
    await after(engine, 8.1)
    with pytest.raises(RequestNotFoundError):
        await requests(engine).find("s", "r")
    assert await keys(engine) == set()
    assert (await requests(engine).ask("s", OTHER, None)).status == "open"
    await after(engine, 30)
    assert (await requests(engine).find("s", "r")).status == "open"
    assert await topics(engine, "s") == ["$input.requested", "$input.resolved", "$input.requested"]


async def test_what_has_been_due_for_a_year_is_forgotten(engine: Engine) -> None:
    """Such as the outcome of a request that its run could not receive until now."""
    await requests(engine).ask("s", PAY, None)
    await requests(engine).answer("s", "r", answer("yes"), ALICE)
    await after(engine, 365)
    assert await keys(engine) == set()


async def test_an_input_is_forgotten_some_days_after_its_outcome(engine: Engine) -> None:
    made = await completed(engine)
    await after(engine, 6.9)
    assert isinstance(await Intents(engine).find("s", "k"), Settled)
    await after(engine, 8.1)
    assert await Intents(engine).find("s", "k") is None
    assert await engine.position("s", f"input:{key_hash('k')}") is None
    assert await keys(engine) == set()
    # Its key is that of another input now.
    await completed(engine)
    assert await topics(engine, "s") == ["$input.accepted", "$input.completed"] * 2
    assert isinstance(await Intents(engine).find("s", made.id), Settled)


async def test_an_entry_of_an_earlier_day_forgets_no_later_outcome(engine: Engine) -> None:
    await completed(engine)
    for day in ("2026-01-02", timestamp()[:10]):
        await engine.put_record(f"remembered/{day}/inputs/s\x1f{key_hash('gone')}", b"", revision=0)
    await after(engine, 6.9)
    assert isinstance(await Intents(engine).find("s", "k"), Settled)


async def test_deleting_a_session_leaves_nothing_that_names_it(engine: Engine) -> None:
    epochs: dict[str, str] = {}
    for name in ("s", "s/t"):
        epochs[name] = (await completed(engine, name)).epoch
        await requests(engine).ask(name, PAY, None)
        await requests(engine).answer(name, "r", answer("yes"), ALICE)
    for kept in (Intents(engine), InputRequests(engine)):
        assert await kept.lives("s") == {epochs["s"]}
        await kept.forget("s", epochs["s"])
    left = {record.key for record in await engine.records("")}
    assert left
    assert all("/s/t\x1f" in key for key in left)
    await engine.delete_session("s/t")
    await after(engine, 8.1)  # the session is gone, and its outcomes are due
    assert await keys(engine) == set()
