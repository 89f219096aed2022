"""Inputs from Python: the same request again until the outcome is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web

from tests.unit.client.test_client_publish import gone
from tests.unit.transports.scripted import Answer, refused, scripted
from wakeline.client import InputOutcome, RefusedError, Session, SessionClient
from wakeline.errors import InputConflictError, RunClosedError, TokenMissingError, UnavailableError


def done(**more: object) -> web.Response:
    return web.json_response({"id": "k", "status": "completed", **more})


async def accepted(_: web.Request) -> web.StreamResponse:
    return web.json_response({"id": "k", "status": "accepted"}, status=202)


async def test_an_input_is_sent_again_with_the_same_id_until_its_outcome_is_known() -> None:
    answers: list[Answer] = [gone, refused(503, "unavailable"), accepted, accepted, done(result={"a": 1})]
    async with scripted(*answers) as server, SessionClient(server.url) as client:
        outcome = await client.session("s").send("approve", [1, "two"], device="phone")
    assert outcome == InputOutcome("k", "completed", {"a": 1})
    sent = [json.loads(body) for body in server.bodies]
    assert len(sent) == 5
    assert {body["id"] for body in sent} == {sent[0]["id"]}
    assert {key: sent[0][key] for key in ("kind", "name", "args", "device")} == {
        "kind": "update",
        "name": "approve",
        "args": [1, "two"],
        "device": "phone",
    }


async def test_two_inputs_have_two_ids() -> None:
    async with scripted(done(), done()) as server, SessionClient(server.url) as client:
        for _ in range(2):
            await client.session("s").send("say", ["hello"], kind="signal")
    first, second = (json.loads(body)["id"] for body in server.bodies)
    assert first != second


async def test_a_rejected_input_is_an_outcome() -> None:
    answer = web.json_response({"id": "k", "status": "rejected", "failure": {"message": "no", "type": "No"}})
    async with scripted(answer) as server, SessionClient(server.url) as client:
        outcome = await client.session("s").send(kind="cancel", id="k")
    assert (outcome.status, outcome.failure) == ("rejected", {"message": "no", "type": "No"})
    (body,) = map(json.loads, server.bodies)
    assert {**body, "wait": 0} == {"id": "k", "kind": "cancel", "wait": 0}


async def test_a_wait_ends() -> None:
    async with scripted(accepted) as server, SessionClient(server.url) as client:
        outcome = await client.session("s").send("approve", wait=timedelta(seconds=0.05))
    assert outcome.status == "accepted"
    assert len(server.requests) < 1000


@pytest.mark.parametrize(("code", "kind"), [("input_conflict", InputConflictError), ("run_closed", RunClosedError)])
async def test_a_refusal_is_raised_as_its_class(code: str, kind: type[Exception]) -> None:
    async with scripted(refused(409, code)) as server, SessionClient(server.url) as client:
        with pytest.raises(kind) as raised:
            await client.session("s").send("approve")
    assert isinstance(raised.value, RefusedError)
    assert len(server.requests) == 1


async def test_a_gateway_that_stays_away_is_reported() -> None:
    retry = timedelta(seconds=0.2)
    async with (
        scripted(refused(503, "unavailable")) as server,
        SessionClient(server.url, retry_timeout=retry) as client,
    ):
        with pytest.raises(UnavailableError):
            await client.session("s").send("approve")
    assert len(server.requests) > 1


@pytest.mark.parametrize("args", ["two", b"two", {"a": 1}, 2])
async def test_arguments_that_are_no_list_are_refused(args: Any) -> None:
    async with SessionClient("http://127.0.0.1:1") as client:
        with pytest.raises(TypeError, match=r"expected a list of arguments, such as \[.*\], got"):
            await client.session("s").send("say", args)


def _sent(session: Session, wait: Any) -> Coroutine[Any, Any, object]:
    return session.send("say", wait=wait)


def _claimed(session: Session, lease: Any) -> Coroutine[Any, Any, object]:
    return session.claim("r", device="phone", lease=lease)


@pytest.mark.parametrize(("call", "name"), [(_sent, "wait"), (_claimed, "lease")])
async def test_a_number_in_place_of_a_duration_is_refused(
    call: Callable[[Session, Any], Coroutine[Any, Any, object]], name: str
) -> None:
    async with SessionClient("http://127.0.0.1:1") as client:
        with pytest.raises(TypeError, match=f"expected {name} to be a timedelta, .*got 5"):
            await call(client.session("s"), 5)


@pytest.mark.parametrize("name", ["silence", "retry_timeout"])
async def test_a_client_s_durations_are_timedeltas(name: str) -> None:
    wrong: Any = {name: 5}
    with pytest.raises(TypeError, match=f"expected {name} to be a timedelta, .*got 5"):
        async with SessionClient("http://127.0.0.1:1", **wrong) as client:
            client.session("s")


async def test_an_input_whose_outcome_is_unknown_names_its_id() -> None:
    async with SessionClient("http://127.0.0.1:1", retry_timeout=timedelta(0)) as client:
        with pytest.raises(UnavailableError) as raised:
            await client.session("s").send("approve", id="k1")
    assert "the input's id: k1" in raised.value.__notes__


async def test_an_input_without_a_token_learns_which_one_it_needs() -> None:
    async with scripted(refused(401, "token_missing")) as server, SessionClient(server.url, "") as client:
        with pytest.raises(TokenMissingError) as raised:
            await client.session("s").send("approve")
    assert "`wakeline token --user NAME --session SESSION --allow input --input NAME`" in raised.value.hint


async def test_an_empty_token_is_none_also_if_the_environment_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAKELINE_TOKEN", "of-the-environment")
    seen: list[str | None] = []

    async def note(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        return done()

    async with scripted(note, note) as server:
        for given in ("", None):
            async with SessionClient(server.url, given) as client:
                await client.session("s").send("approve")
    assert seen == [None, "Bearer of-the-environment"]
