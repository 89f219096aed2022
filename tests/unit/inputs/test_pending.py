"""While Temporal is away, a gateway keeps only so many inputs, and so many bytes of them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest

from tests.support import Served
from tests.tokens import SECRET, bearer
from tests.unit.conftest import Serve
from tests.unit.inputs.test_intents import intent
from wakeline.errors import LimitReachedError
from wakeline.gateway.inputs import ANSWER_KEY, Asked
from wakeline.gateway.inputs.pending import Pending
from wakeline.gateway.log import NewSession
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.rules import InputRules
from wakeline.gateway.sessions import Run, Runs

KIB = 1024


async def gateway(serve: Serve, engine: MemoryEngine, **limits: Any) -> Served:
    for session in ("s", "t", "u"):
        await engine.create_session(NewSession(session))
        await Runs(engine).put(session, Run(session, "r1", "r1", "r1", "Chat", ""))
    return await serve(
        log=engine, token_secret=SECRET, open_metrics=True, temporal="127.0.0.1:1", inputs=InputRules(**limits)
    )


async def send(served: Served, session: str, user: str, key: str, size: int = 1) -> tuple[int, Any]:
    body = {"id": key, "kind": "signal", "name": "say", "args": ["x" * size], "wait": 0}
    async with served.http.post(
        f"/v1/sessions/{session}/inputs", json=body, headers=bearer(sub=user, inputs=["*"])
    ) as answer:
        said = await answer.json()
        if answer.status == 429:
            assert answer.headers["Retry-After"] == "5"
            assert (said["error"]["code"], said["error"]["hint"][:17]) == ("limit_reached", "Wait for the outc")
        return answer.status, said


async def sent(served: Served, *inputs: tuple[Any, ...]) -> list[int]:
    return [(await send(served, *each))[0] for each in inputs]


async def test_a_session_s_and_a_user_s_inputs_are_limited_in_number(serve: Serve) -> None:
    served = await gateway(serve, MemoryEngine(), session_pending=3, user_pending=2)
    assert await sent(served, ("s", "ada", "1"), ("s", "ada", "2"), ("t", "ada", "3")) == [202, 202, 429]
    assert await sent(served, ("s", "ada", "1"), ("s", "bob", "4"), ("s", "eve", "5")) == [202, 202, 429]
    assert await sent(served, ("u", "bob", "6"), ("u", "bob", "7"), ("u", "eve", "8")) == [202, 429, 202]
    assert await served.metric("wakeline_inputs_pending") == 5
    _, refused = await send(served, "t", "ada", "3")
    assert refused["error"]["message"] == "expected at most 2 inputs of user 'ada' without an outcome, got one more"


async def test_the_arguments_of_a_session_s_and_a_user_s_inputs_are_limited_in_bytes(serve: Serve) -> None:
    limits: dict[str, Any] = {"session_pending_bytes": 256 * KIB, "user_pending_bytes": 128 * KIB}
    served = await gateway(serve, MemoryEngine(), **limits)
    large = 100 * KIB
    assert await sent(served, ("s", "ada", "1", large), ("t", "ada", "2", large)) == [202, 429]
    assert await sent(served, ("s", "bob", "3", large), ("s", "eve", "4", large)) == [202, 429]
    assert await sent(served, ("t", "ada", "5"), ("s", "eve", "6")) == [202, 202]
    assert await served.metric("wakeline_inputs_pending_bytes") == 2 * (large + 4) + 2 * 5
    _, refused = await send(served, "t", "ada", "7", large)
    assert "expected at most 131072 bytes of arguments of user 'ada'" in refused["error"]["message"]


async def test_inputs_that_arrive_together_do_not_exceed_the_limit(serve: Serve) -> None:
    served = await gateway(serve, MemoryEngine(), session_pending=5)
    statuses = await asyncio.gather(*(send(served, "s", f"user-{n}", str(n)) for n in range(20)))
    assert sorted(status for status, _ in statuses) == [202] * 5 + [429] * 15


async def test_a_gateway_that_starts_counts_what_another_one_has_left(serve: Serve) -> None:
    engine = MemoryEngine()
    served = await gateway(serve, engine, user_pending=1)
    assert await sent(served, ("s", "ada", "1"), ("t", "ada", "2")) == [202, 429]
    again = await gateway(serve, engine, user_pending=1)
    async with asyncio.timeout(60):
        while await again.metric("wakeline_inputs_pending") < 1:
            await asyncio.sleep(0.02)
    assert await sent(again, ("t", "ada", "2")) == [429]


def test_an_outcome_makes_room_and_the_outcome_of_a_request_is_not_refused() -> None:
    pending = Pending(InputRules(session_pending=1), Metrics())
    asked = Asked(id="k", kind="signal", name="say")
    pending.begin(intent())
    with pytest.raises(LimitReachedError), pending.room("s", asked, ""):
        pass
    with pending.room("s", msgspec.structs.replace(asked, id=ANSWER_KEY + "1"), ""):
        pending.end(intent())
    with pending.room("s", asked, ""), pytest.raises(LimitReachedError), pending.room("s", asked, ""):
        pass


@pytest.mark.parametrize("name", ["session_pending", "user_pending"])
def test_a_limit_is_at_least_one(name: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({name: 0}, InputRules)


async def test_what_is_shown_of_an_input_counts_as_its_arguments_do(serve: Serve) -> None:
    served = await gateway(serve, MemoryEngine(), user_pending_bytes=128 * KIB)
    statuses = []
    for key in ("1", "2", "3"):
        body = {"id": key, "kind": "signal", "name": "say", "shown": {"text": "x" * 60 * KIB}, "wait": 0}
        async with served.http.post(
            "/v1/sessions/s/inputs", json=body, headers=bearer(sub="ada", inputs=["*"])
        ) as answer:
            statuses.append(answer.status)
    assert statuses == [202, 202, 429]
    assert await served.metric("wakeline_inputs_pending_bytes") > 120 * KIB


async def test_a_wait_for_an_outcome_is_a_connection_of_its_user_and_ends_with_the_token(serve: Serve) -> None:
    engine = MemoryEngine()
    await engine.create_session(NewSession("s"))
    await Runs(engine).put("s", Run("s", "r1", "r1", "r1", "Chat", ""))
    settings = {"token_secret": SECRET, "open_metrics": True, "temporal": "127.0.0.1:1", "user_connections": 1}
    served = await serve(log=engine, **settings)
    token = bearer(sub="ada", inputs=["*"], exp=int(time.time()) + 10)

    async def signal(key: str, wait: float) -> int:
        body = {"id": key, "kind": "signal", "name": "say", "wait": wait}
        async with served.http.post("/v1/sessions/s/inputs", json=body, headers=token) as answer:
            return answer.status

    async with asyncio.timeout(28):  # below the wait
        waiting = asyncio.create_task(signal("1", 30))
        while not await served.metric("wakeline_inputs_pending"):
            await asyncio.sleep(0.01)
        assert await signal("2", 1) == 429
        assert await signal("3", 0) == 202
        assert await waiting == 202
