"""Inputs at a gateway without Temporal: what is refused before anything is sent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.tokens import SECRET, bearer
from tests.unit.conftest import Serve
from tests.unit.inputs.test_intents import intent
from wakeline.gateway.log import NewSession
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.sessions import Intents, Settled

INPUT = {"id": "k1", "kind": "signal", "name": "say", "args": ["hello"]}


@pytest.mark.parametrize(
    ("claims", "status", "code"),
    [
        ({"inputs": ["say"]}, 503, "temporal_unavailable"),
        ({"inputs": {"order-*": ["s*"]}}, 503, "temporal_unavailable"),
        ({}, 403, "not_allowed"),
        ({"inputs": ["approve"]}, 403, "not_allowed"),
        ({"inputs": {"chat-*": ["say"]}}, 403, "not_allowed"),
        ({"inputs": ["say"], "allow": ["read", "publish"]}, 403, "not_allowed"),
        ({"inputs": ["say"], "sessions": ["chat-*"]}, 404, "session_not_found"),
    ],
)
async def test_a_token_sends_only_the_inputs_that_it_names(
    serve: Serve, claims: dict[str, Any], status: int, code: str
) -> None:
    served = await serve(token_secret=SECRET)
    answer = await served.call("POST", "/v1/sessions/order-1/inputs", json=INPUT, headers=bearer(**claims))
    assert (answer[0], answer[1]["error"]["code"]) == (status, code)


@pytest.mark.parametrize("changed", [{"kind": "query"}, {"args": "hello"}, {"wait": 31}, {"by": "bob"}, {"id": 1}])
async def test_a_body_of_another_form_is_refused(serve: Serve, changed: dict[str, Any]) -> None:
    served = await serve()
    status, answer = await served.call("POST", "/v1/sessions/order-1/inputs", json={**INPUT, **changed})
    assert (status, answer["error"]["code"]) == (400, "body_invalid")


@pytest.mark.parametrize(
    "changed",
    [
        {"name": ""},
        {"name": "$cancel"},
        {"name": "__temporal_poll"},
        {"name": "wakeline_answer"},
        {"kind": "cancel"},
        {"id": ""},
        {"id": "é"},
    ],
)
async def test_an_impossible_name_or_id_is_refused(serve: Serve, changed: dict[str, Any]) -> None:
    served = await serve()
    status, answer = await served.call("POST", "/v1/sessions/order-1/inputs", json={**INPUT, **changed})
    assert (status, answer["error"]["code"]) == (400, "request_invalid")


async def test_too_large_arguments_are_refused(serve: Serve) -> None:
    served = await serve()
    body = {**INPUT, "args": ["x" * 128 * 1024]}
    status, answer = await served.call("POST", "/v1/sessions/order-1/inputs", json=body)
    assert (status, answer["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("args", ["[" * 129 + "]" * 129, "[" * 50_000, "[1", "[NaN]", "[01]", '["\x00"]'], ids=range(6))
async def test_arguments_that_are_no_json_or_nest_too_deep_are_refused(serve: Serve, args: str) -> None:
    served = await serve()
    body = '{"id":"k1","kind":"signal","name":"say","args":ARGS}'.replace("ARGS", args)
    status, answer = await served.call("POST", "/v1/sessions/order-1/inputs", data=body.encode("latin-1"))
    assert (status, answer["error"]["code"]) == (400, "body_invalid")


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"sub": "alice", "allow": ["input"]}, 200),
        ({"sub": "bob", "allow": ["input"]}, 404),
        ({"sub": "bob", "allow": ["input", "read"]}, 200),
        ({"sub": "bob", "allow": ["read"]}, 200),
        ({"sub": "bob", "allow": ["read", "input"], "topics": ["status"]}, 404),
        ({"sub": "bob", "allow": ["read", "input"], "topics": ["$input.completed"]}, 404),
        ({"sub": "bob", "allow": ["read", "input"], "topics": ["$input.*"]}, 200),
        ({"sub": "alice", "allow": ["read", "input"], "topics": ["status"]}, 200),
        ({"sub": "alice", "allow": ["publish"]}, 403),
        ({"sub": "alice", "allow": ["input"], "sessions": ["other"]}, 404),
    ],
)
async def test_an_outcome_is_for_its_user_and_for_those_who_may_read_it_in_the_log(
    serve: Serve, claims: dict[str, Any], status: int
) -> None:
    engine = MemoryEngine()
    epoch = (await engine.create_session(NewSession("s")))[0].epoch
    data = msgspec.Raw(b'{"id":"k","result":1}')
    done = Settled(epoch=epoch, digest="d", status="completed", data=data, by="alice")
    await Intents(engine).settle(intent("s", "k", epoch), done)
    # Its outcome is the same while it is under way.
    await Intents(engine).create(msgspec.structs.replace(intent("s", "k-2", epoch, namespace="gone"), by="alice"))
    served = await serve(log=engine, token_secret=SECRET, temporal="127.0.0.1:1")
    for key, answered in (("k", 200), ("k-2", 202)):
        got, answer = await served.call("GET", f"/v1/sessions/s/inputs/{key}", headers=bearer(**claims))
        assert got == (answered if status == 200 else status)
        assert ("result" in answer) == (got == 200)
