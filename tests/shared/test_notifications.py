"""A notification is decided and sent by one gateway, and by another one if that is gone."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.receivers import Receiver, receiver
from tests.shared.conftest import Gateway, Start, shared_out
from wakeline.gateway.notifications import notifier
from wakeline.gateway.rules import Notify

NAMES = [f"s{number}" for number in range(24)]


def settings(hook: Receiver, grace: float) -> dict[str, Any]:
    return {
        "notify": {"alerts": Notify(topics=("alert",), users=("ada",), grace=grace)},
        "channels": {"ops": hook.channel()},
        "outgoing_networks": ("127.0.0.1",),
    }


async def publish(served: Gateway, session: str) -> None:
    events = {"events": [{"topic": "alert", "data": session}]}
    status, answer = await served.call("POST", f"/v1/sessions/{session}/events", json=events)
    assert status == 200, answer


async def delivered(served: Gateway) -> None:
    """Return when every session's notification is delivered."""
    async with asyncio.timeout(60):
        while True:
            _, page = await served.call("GET", "/v1/notifications?state=delivered")
            if len(page["notifications"]) == len(NAMES):
                return
            await asyncio.sleep(0.05)


async def test_each_is_sent_once_whichever_gateway_accepted_the_event(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier, "WALK_SECONDS", 1.0)  # wake-ups of commits at the other gateway may be lost
    async with receiver() as hook:
        # A lease that a busy machine does not let end in the middle of this.
        gateways = [await start(lease=4.0, **settings(hook, 0)) for _ in range(2)]
        await shared_out(gateways)
        await asyncio.gather(*(publish(gateways[number % 2], name) for number, name in enumerate(NAMES)))
        await delivered(gateways[0])
        assert Counter(request.data["session"] for request in hook.received) == Counter(NAMES)


async def test_a_gateway_takes_over_what_another_has_not_sent(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "WALK_SECONDS", 1.0)
    async with receiver() as hook:
        gateways = [await start(**settings(hook, 1.5)) for _ in range(2)]
        await shared_out(gateways)
        await asyncio.gather(*(publish(gateways[0], name) for name in NAMES))
        gateways[0].engine.cut = True
        await delivered(gateways[1])
        ids = {(request.data["session"], request.id) for request in hook.received}
        assert sorted(session for session, _ in ids) == sorted(NAMES), "sent again under the same id only"
