from __future__ import annotations

import time

import pytest

from tests.clocks import Clock
from wakeline.errors import LimitReachedError, TokenExpiredError, TokenInvalidError
from wakeline.gateway.access import TICKET_SECONDS, Grant, Tickets
from wakeline.gateway.access import tickets as module
from wakeline.gateway.delivery import Topics
from wakeline.gateway.log.engines.memory import MemoryEngine


def grant(user: str = "alice", expires: float | None = None) -> Grant:
    return Grant(user, ("order-*",), frozenset({"read"}), expires=expires)


def made(clock: Clock | None = None) -> Tickets:
    return Tickets(MemoryEngine(), None, clock or Clock(0.0))


async def test_a_ticket_is_good_once_for_what_its_token_allows() -> None:
    tickets = made()
    given = Grant(
        "alice",
        ("order-*", "s"),
        frozenset({"read"}),
        Topics(["t", "u*"]),
        time.time() + 60,
        True,
        ("p*",),
        inputs=(("order-*", ("say",)),),
    )
    one, two = await tickets.give(given), await tickets.give(grant("bob"))
    assert await tickets.use(one) == given
    with pytest.raises(TokenInvalidError, match="unused ticket"):
        await tickets.use(one)
    assert (await tickets.use(two)).user == "bob"
    assert len(tickets) == 0


async def test_a_ticket_that_is_late_is_worth_nothing() -> None:
    clock = Clock(0.0)
    tickets = made(clock)
    early, late = await tickets.give(grant()), await tickets.give(grant())
    clock.now = TICKET_SECONDS - 0.01
    await tickets.use(early)
    clock.now = TICKET_SECONDS
    with pytest.raises(TokenInvalidError, match="30 s"):
        await tickets.use(late)
    assert len(tickets) == 0


async def test_a_ticket_ends_with_its_token() -> None:
    tickets = made()
    ended = await tickets.give(grant(expires=time.time() - 1))
    with pytest.raises(TokenExpiredError):
        await tickets.use(ended)


async def test_tickets_are_long_all_different_and_not_kept() -> None:
    records = MemoryEngine()
    tickets = Tickets(records, None)
    given = {await tickets.give(grant(f"user-{number}")) for number in range(1000)}
    assert len(given) == 1000
    assert all(len(ticket) >= 43 for ticket in given)
    kept = [record.key.encode() + record.value for record in await records.records("")]
    assert len(kept) == 1000
    assert not any(ticket.encode() in each for ticket in list(given)[:100] for each in kept)


async def test_nobody_can_have_them_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(0.0)
    tickets = made(clock)
    monkeypatch.setattr(module, "_PER_USER", 3)
    monkeypatch.setattr(module, "_AT_ALL", 5)
    for user in ("alice", "alice", "alice", "bob"):
        await tickets.give(grant(user))
    with pytest.raises(LimitReachedError) as refusal:
        await tickets.give(grant("alice"))
    assert refusal.value.headers() == {"Retry-After": "30"}
    await tickets.give(grant("bob"))
    with pytest.raises(LimitReachedError):
        await tickets.give(grant("carol"))
    clock.now = TICKET_SECONDS
    await tickets.give(grant("alice"))
    assert len(tickets) == 1
    assert set(tickets._of) == {"alice"}
