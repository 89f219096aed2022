from __future__ import annotations

import time

import pytest

from wakeline.errors import LimitReachedError, TokenExpiredError, TokenInvalidError
from wakeline.gateway.access import TICKET_SECONDS, Grant, Tickets
from wakeline.gateway.access import tickets as module


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def grant(user: str = "alice", expires: float | None = None) -> Grant:
    return Grant(user, ("order-*",), frozenset({"read"}), expires=expires)


def test_a_ticket_is_good_once_for_what_its_token_allows() -> None:
    tickets = Tickets()
    given = grant()
    one, two = tickets.give(given), tickets.give(grant("bob"))
    assert tickets.use(one) is given
    with pytest.raises(TokenInvalidError, match="unused ticket"):
        tickets.use(one)
    assert tickets.use(two).user == "bob"
    assert len(tickets) == 0


def test_a_ticket_that_is_late_is_worth_nothing() -> None:
    clock = Clock()
    tickets = Tickets(clock)
    early, late = tickets.give(grant()), tickets.give(grant())
    clock.now = TICKET_SECONDS - 0.01
    tickets.use(early)
    clock.now = TICKET_SECONDS
    with pytest.raises(TokenInvalidError, match="30 s"):
        tickets.use(late)
    assert len(tickets) == 0


def test_a_ticket_ends_with_its_token() -> None:
    tickets = Tickets()
    ended = tickets.give(grant(expires=time.time() - 1))
    with pytest.raises(TokenExpiredError):
        tickets.use(ended)


def test_tickets_are_long_all_different_and_not_kept() -> None:
    tickets = Tickets()
    given = {tickets.give(grant(f"user-{number}")) for number in range(1000)}
    assert len(given) == 1000
    assert all(len(ticket) >= 43 for ticket in given)
    assert not any(ticket.encode() in key for ticket in given for key in tickets._given)


def test_nobody_can_have_them_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    tickets = Tickets(clock)
    monkeypatch.setattr(module, "_PER_USER", 3)
    monkeypatch.setattr(module, "_AT_ALL", 5)
    for user in ("alice", "alice", "alice", "bob"):
        tickets.give(grant(user))
    with pytest.raises(LimitReachedError) as refusal:
        tickets.give(grant("alice"))
    assert refusal.value.headers() == {"Retry-After": "30"}
    tickets.give(grant("bob"))
    with pytest.raises(LimitReachedError):
        tickets.give(grant("carol"))
    clock.now = TICKET_SECONDS
    tickets.give(grant("alice"))
    assert len(tickets) == 1
    assert set(tickets._of) == {"alice"}
