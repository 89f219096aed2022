"""The inputs that carry outcomes to runs: each has a key of its own."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from structlog.testing import capture_logs

from wakeline.errors import LimitReachedError, RequestConflictError
from wakeline.gateway.inputs import Asked, Inputs
from wakeline.gateway.requests.delivering import deliver, refusal
from wakeline.gateway.sessions import Delivery, InputRequest, Requested, Resolved


class Sent:
    """Stands for the inputs, and keeps their keys."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.epochs: list[str | None] = []

    async def deliver(self, session: str, asked: Asked, by: str, *, epoch: str | None = None) -> None:
        self.keys.append(asked.id)
        self.epochs.append(epoch)


async def test_no_request_has_the_key_of_a_refusal() -> None:
    sent = Sent()
    id = "refused/run-1/pay-1"
    await deliver(cast(Inputs, sent), closed(id, "2026-01-01T00:00:00Z"))
    refused = refusal("run-1", "pay-1", RequestConflictError("another one"))
    assert refused.id not in sent.keys


async def test_a_later_request_with_a_forgotten_id_has_an_outcome_of_its_own() -> None:
    sent = Sent()
    for closed_at in ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"):
        await deliver(cast(Inputs, sent), closed("pay-1", closed_at))
    assert sent.keys[0] == sent.keys[1] != sent.keys[2]


class Full(Sent):
    """Refuses three times, because the run has had as many signals as Temporal accepts."""

    async def deliver(self, session: str, asked: Asked, by: str, *, epoch: str | None = None) -> None:
        await super().deliver(session, asked, by, epoch=epoch)
        if len(self.keys) <= 3:
            raise LimitReachedError("expected at most 10000 signals of one Temporal run, got one more", retry_after=60)


async def test_an_outcome_for_a_run_that_is_full_is_logged_once_and_waits_as_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full, pauses = Full(), list[float]()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with capture_logs() as logs:
        await deliver(cast(Inputs, full), closed("pay-1", "2026-01-01T00:00:00Z"))
    assert [log["log_level"] for log in logs] == ["info"]
    assert len(full.keys) == 4
    assert min(pauses) >= 60


async def test_an_outcome_is_for_a_run_of_its_own_session_and_no_later_one_of_that_name() -> None:
    sent = Sent()
    await deliver(cast(Inputs, sent), closed("pay-1", "2026-01-01T00:00:00Z"))
    assert sent.epochs == ["e"]


def closed(id: str, closed_at: str) -> InputRequest:
    return InputRequest(
        session="s",
        epoch="e",
        asked="a",
        requested=Requested(id=id, reason="approval"),
        deliver=Delivery(),
        resolved=Resolved(request=id, status="cancelled"),
        closed_at=closed_at,
    )
