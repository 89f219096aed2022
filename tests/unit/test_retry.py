"""The pauses between attempts: they double up to the longest, differ between clients, and start again after a success."""

from __future__ import annotations

import time

from wakeline.retry import Backoff


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(0.1, 1.0, jitter=0)
    assert [round(backoff.pause(), 6) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert backoff.failures == 6
    backoff.reset()
    assert (backoff.failures, backoff.pause()) == (0, 0.1)


def test_pauses_of_many_clients_differ_by_up_to_half() -> None:
    pauses = [Backoff(1.0).pause() for _ in range(1000)]
    assert 0.5 <= min(pauses) < 0.55
    assert 0.95 < max(pauses) <= 1.0


def test_a_service_that_is_away_for_weeks_is_still_retried() -> None:
    backoff = Backoff(0.1, 5.0, jitter=0)
    backoff.failures = 10**9
    assert backoff.pause() == 5.0


async def test_a_server_may_ask_for_a_longer_wait() -> None:
    backoff, began = Backoff(0.001), time.monotonic()
    await backoff.wait(0.05)
    assert time.monotonic() - began >= 0.05
    assert backoff.failures == 1
