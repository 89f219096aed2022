"""SIGKILL at random moments: every notification is sent, and receivers that know its id have each once."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
import pytest

from tests.gateways import GatewayProcess
from tests.pushes import channel, push_service
from tests.receivers import Received, Receiver, receiver, status
from tests.soak import dice, times
from tests.support import Served

KILLS = times(2, 8)
SESSIONS = times(30, 200)
GONE = (aiohttp.ClientError, TimeoutError)
LATE_SECONDS = 8
"""The time in which a gateway is killed before it sends what was published, also on a busy machine."""


def process(
    hook: Receiver, data: Path, kept_in: Mapping[str, str] = MappingProxyType({}), **channels: dict[str, Any]
) -> GatewayProcess:
    rules = {
        "alerts": {"topics": ["alert"], "users": ["ada", "bob"], "grace": 0.2},
        "fires": {"topics": ["fire"], "critical": True},
        "late": {"topics": ["late"], "users": ["ada", "bob"], "grace": LATE_SECONDS},
    }
    environment = {
        "WAKELINE_NOTIFY": json.dumps(rules),
        "WAKELINE_CHANNELS": json.dumps({"ops": hook.channel(), **channels}),
        "WAKELINE_OUTGOING_NETWORKS": "127.0.0.1",
        **kept_in,
    }
    return GatewayProcess(data, environment=environment)


async def publish(served: Served, session: str, sequence: int, topic: str) -> None:
    """Publish until it is acknowledged, as a publisher does."""
    headers = {"publisher": f"test:{session}", "sequence": str(sequence), "attempt": "1"}
    while True:
        try:
            await served.publish(session, {"topic": topic, "data": sequence}, **headers)
            return
        except GONE:
            await asyncio.sleep(0.05)


async def watch(served: Served, session: str) -> None:
    """Have a device that has seen nothing: without a token its user has no name."""
    state = None
    while state is None:
        try:
            _, state = await served.call("GET", f"/v1/sessions/{session}")
            body = {"seen": f"{state['epoch']}-0"}
            await served.call("PUT", f"/v1/sessions/{session}/devices/phone", json=body)
        except GONE:
            state = None
            await asyncio.sleep(0.05)


async def load(served: Served, chance: random.Random) -> None:
    for number in range(SESSIONS):
        session = f"s{number}"
        await publish(served, session, 0, "text")
        await watch(served, session)
        await publish(served, session, 1, "alert")
        await publish(served, session, 2, "fire")
        await asyncio.sleep(chance.uniform(0, 0.05))


@pytest.mark.timeout(480 + 10 * KILLS)
async def test_kills_lose_no_notification_and_repeat_none_under_another_id(
    kept_in: Mapping[str, str], tmp_path: Path
) -> None:
    chance = dice(11)
    async with receiver() as hook, push_service() as service:
        gateway = process(hook, tmp_path / "data", kept_in, phones=channel())
        phone = service.browser("phone")
        await gateway.start()
        try:
            async with Served(gateway.url) as served:
                await phone.subscribe(served)
                loading = asyncio.ensure_future(load(served, chance))
                for _ in range(KILLS):
                    # It sends nothing before the lease of the one that was killed has ended.
                    before = len(hook.received)
                    while len(hook.received) == before and not loading.done():
                        await asyncio.sleep(0.01)
                    await asyncio.sleep(chance.uniform(0, 0.5))
                    await gateway.kill()
                    await gateway.start()
                await loading
                expected = {
                    (f"s{number}", user, offset)
                    for number in range(SESSIONS)
                    for user, offset in (("ada", 1), ("bob", 1), ("", 2))
                }
                async with asyncio.timeout(120):
                    while {key for request in hook.received for key in keys(request)} < expected:
                        await asyncio.sleep(0.05)
                    while len({shown["tag"] for shown in phone.shown()}) < SESSIONS:
                        await asyncio.sleep(0.05)
            assert await gateway.stop() == 0
        finally:
            await gateway.kill()
    ids: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    for request in hook.received:
        request.verify()
        for key in keys(request):
            ids[key].add(request.id)
    assert set(ids) == expected
    assert {key: found for key, found in ids.items() if len(found) != 1} == {}, "one id for one notification"
    bodies = {request.id: request.body for request in hook.received}
    assert all(bodies[request.id] == request.body for request in hook.received), "one id is one body"
    tags: dict[str, set[str]] = defaultdict(set)
    for shown in phone.shown():
        tags[shown["data"]["session"]].add(shown["tag"])
    assert {session: len(found) for session, found in tags.items()} == {f"s{number}": 1 for number in range(SESSIONS)}
    repeated = Counter(request.id for request in hook.received)
    assert max(repeated.values()) <= KILLS + 1


def keys(request: Received) -> list[tuple[str, str, int]]:
    data = request.data
    return [(data["session"], data["user"], event["offset"]) for event in data["events"]]


async def test_what_was_published_while_no_rule_was_looked_at_is_notified_after_the_start(
    kept_in: Mapping[str, str], tmp_path: Path
) -> None:
    """The cursor is in the log: a gateway that was killed right after the acknowledgement misses nothing."""
    async with receiver() as hook:
        gateway = process(hook, tmp_path / "data", kept_in)
        await gateway.start()
        try:
            async with Served(gateway.url) as served:
                await served.publish("s", {"topic": "late", "data": 1})
                await gateway.kill()
                assert hook.received == []
                await gateway.start()
                requests = await hook.until(2)
                assert {request.data["user"] for request in requests} == {"ada", "bob"}
        finally:
            await gateway.kill()


async def test_a_receiver_that_is_away_holds_up_no_other_session_after_a_kill(tmp_path: Path) -> None:
    """More sessions wait for their next attempt than are checked at a time."""
    waiting = 110
    async with receiver() as hook:
        hook.always = status(503, Retry_After="3600")
        gateway = process(hook, tmp_path / "data")
        await gateway.start()
        try:
            async with Served(gateway.url) as served:
                for number in range(waiting):
                    await served.publish(f"a{number}", {"topic": "alert", "data": 1})
                async with asyncio.timeout(60):
                    while await attempted(served) < 2 * waiting:
                        await asyncio.sleep(0.1)
                await served.publish("z", {"topic": "late", "data": 2})
                await gateway.kill()
                assert [request for request in hook.received if request.data["session"] == "z"] == []
                hook.always = status(200)
                await gateway.start()
                async with asyncio.timeout(60):
                    while {key for request in hook.received for key in keys(request) if key[0] == "z"} != {
                        ("z", "ada", 0),
                        ("z", "bob", 0),
                    }:
                        await asyncio.sleep(0.05)
        finally:
            await gateway.kill()


async def attempted(served: Served) -> int:
    """Return how many pending notifications have an attempt whose outcome is stored."""
    _, page = await served.call("GET", "/v1/notifications?state=pending&limit=1000")
    return sum(bool(found["attempts"]) for found in page["notifications"])
