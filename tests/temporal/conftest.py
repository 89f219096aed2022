"""Short pauses for gateways that run in the tests' process: a test waits for each attempt, and not for the pauses between."""

from __future__ import annotations

import pytest

from wakeline.gateway.following import follower, followers, lookups, pool, resuming, telling
from wakeline.gateway.following.life import reducer, resting
from wakeline.gateway.following.watching import asking, past

_PAUSE = 0.2


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (asking, follower, followers, lookups, past, pool, resuming, telling):
        monkeypatch.setattr(module, "RETRY_SECONDS", _PAUSE)
    for rules in (reducer, resting):
        monkeypatch.setattr(rules, "AGAIN_SECONDS", _PAUSE)
    monkeypatch.setattr(resting, "_SOONEST", _PAUSE)
