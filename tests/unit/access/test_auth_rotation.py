"""Keys that an issuer changes: a real JWKS over HTTP, which fails, hangs and lies."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from tests.tokens import jwk, token
from tests.unit.access.test_auth import auth
from tests.unit.conftest import Serve
from wakeline.errors import SettingsInvalidError, TokenInvalidError, UnavailableError
from wakeline.gateway.access import Keys
from wakeline.gateway.access import keys as module

KEYS = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("one", "two", "three")}


class Issuer:
    """Serves a JWKS, and what else goes wrong."""

    def __init__(self) -> None:
        self.names = ["one"]
        self.asked = 0
        self.url = ""
        self.answer: Any = None
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def handle(self, _: web.Request) -> web.Response:
        self.asked += 1
        await self.go_on.wait()
        body = json.dumps({"keys": [jwk(KEYS[name], name) for name in self.names]})
        return self.answer() if self.answer else web.Response(text=body)


def signed(name: str, **changed: Any) -> str:
    return token(KEYS[name], "ES256", {"kid": name}, **changed)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    app = web.Application()
    app.router.add_get("/keys", issuer.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}/keys"
    yield issuer
    issuer.go_on.set()
    await runner.cleanup()


@pytest.fixture
async def keys(issuer: Issuer) -> AsyncIterator[Keys]:
    keys = Keys(None, issuer.url, again=0.2)
    await keys.start()
    yield keys
    await keys.stop()


async def asked_again(issuer: Issuer) -> None:
    async with asyncio.timeout(60):
        while issuer.asked < 2:
            await asyncio.sleep(0.01)


async def test_a_new_key_is_found_when_a_token_names_it(issuer: Issuer, keys: Keys) -> None:
    checked = auth(keys)
    await checked.verify(signed("one"))
    issuer.names = ["one", "two"]
    await asyncio.sleep(0.25)
    await checked.verify(signed("two"))
    await checked.verify(signed("one"))
    assert issuer.asked == 2


async def test_a_key_that_was_withdrawn_is_good_no_longer_also_for_tokens_that_were_seen(
    issuer: Issuer, keys: Keys
) -> None:
    checked = auth(keys)
    seen = signed("one")
    await checked.verify(seen)
    issuer.names = ["two"]
    await asyncio.sleep(0.25)
    await checked.verify(signed("two"))
    with pytest.raises(TokenInvalidError):
        await checked.verify(seen)


async def test_withdrawn_keys_are_noticed_without_a_token_that_names_another(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REFRESH_SECONDS", 0.1)
    keys = Keys(None, issuer.url, again=0.0)
    await keys.start()
    checked, seen = auth(keys), signed("one")
    await checked.verify(seen)
    issuer.names, asked = [], issuer.asked
    async with asyncio.timeout(60):
        while issuer.asked < asked + 2:  # the first answer is read before the second is asked for
            await asyncio.sleep(0.02)
    with pytest.raises(TokenInvalidError):
        await checked.verify(seen)
    await keys.stop()


async def test_unknown_kids_do_not_make_the_gateway_ask_again_and_again(issuer: Issuer, keys: Keys) -> None:
    checked = auth(keys)
    await asyncio.sleep(0.25)

    async def attempt(number: int) -> None:
        with pytest.raises(TokenInvalidError, match="its kid and alg match none"):
            await checked.verify(token(KEYS["two"], "ES256", {"kid": f"kid-{number}"}))

    began = time.monotonic()
    await asyncio.gather(*(attempt(number) for number in range(200)))
    assert 2 <= issuer.asked <= 2 + (time.monotonic() - began) / 0.2


async def test_a_slow_issuer_holds_up_nobody_whose_key_is_known(issuer: Issuer, keys: Keys) -> None:
    checked = auth(keys)
    await asyncio.sleep(0.25)
    issuer.names = ["one", "two"]
    issuer.go_on.clear()
    waiting = [asyncio.create_task(checked.verify(signed("two"))) for _ in range(20)]
    await asked_again(issuer)
    async with asyncio.timeout(60):
        await checked.verify(signed("one", sub="not seen before"))
    issuer.go_on.set()
    await asyncio.gather(*waiting)
    assert issuer.asked == 2


async def test_one_who_leaves_while_it_waits_does_not_end_the_fetch_for_others(issuer: Issuer, keys: Keys) -> None:
    checked = auth(keys)
    await asyncio.sleep(0.25)
    issuer.names = ["two"]
    issuer.go_on.clear()
    first = asyncio.create_task(checked.verify(signed("two")))
    second = asyncio.create_task(checked.verify(signed("two")))
    await asked_again(issuer)
    first.cancel()
    issuer.go_on.set()
    await second


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(status=500, text="no"),
        lambda: web.Response(text="<html>"),
        lambda: web.Response(text='{"keys": 1}'),
        lambda: web.Response(body=b'{"keys": []' + b" " * 300_000 + b"}"),
        lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/keys"}),
    ],
    ids=["fails", "page", "other", "large", "elsewhere"],
)
async def test_keys_that_are_known_stay_when_new_ones_cannot_be_had(issuer: Issuer, keys: Keys, answer: Any) -> None:
    checked = auth(keys)
    issuer.names, issuer.answer = ["two"], answer
    await asyncio.sleep(0.25)
    with pytest.raises(TokenInvalidError):
        await checked.verify(signed("two"))
    assert issuer.asked == 2
    await checked.verify(signed("one"))


async def test_without_any_key_yet_the_answer_is_later(issuer: Issuer) -> None:
    issuer.answer = lambda: web.Response(status=503)
    keys = Keys(None, issuer.url, again=0.1)
    await keys.start()
    checked = auth(keys)
    with pytest.raises(UnavailableError):
        await checked.verify(signed("one"))
    issuer.answer = None
    await asyncio.sleep(0.15)
    await checked.verify(signed("one"))
    await keys.stop()


async def test_an_issuer_that_says_nothing_is_given_up(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FETCH_SECONDS", 0.2)
    issuer.go_on.clear()
    keys = Keys(None, issuer.url)
    async with asyncio.timeout(60):
        await keys.start()
        with pytest.raises(UnavailableError):
            await auth(keys).verify(signed("one"))
    await keys.stop()


async def test_a_file_is_read_again_too(tmp_path: Any) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [jwk(KEYS["one"], "one")]}))
    keys = Keys(None, str(file), again=0.0)
    await keys.start()
    checked = auth(keys)
    await checked.verify(signed("one"))
    file.write_text(json.dumps({"keys": [jwk(KEYS["two"], "two")]}))
    await checked.verify(signed("two"))
    file.unlink()
    with pytest.raises(TokenInvalidError):
        await checked.verify(signed("three"))
    await checked.verify(signed("two"))
    await keys.stop()


@pytest.mark.parametrize("content", [None, "not json", " " * 300_000])
async def test_a_file_that_cannot_be_read_ends_the_start(serve: Serve, tmp_path: Any, content: str | None) -> None:
    file = tmp_path / "keys.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsInvalidError, match="token_jwks"):
        await serve(token_jwks=str(file))


async def test_a_gateway_serves_with_keys_from_its_issuer(issuer: Issuer, serve: Serve) -> None:
    served = await serve(token_jwks=issuer.url)
    for name, status in (("one", 200), ("two", 401)):
        headers = {"Authorization": f"Bearer {signed(name)}"}
        assert (await served.call("GET", "/v1/sessions", headers=headers))[0] == status


async def test_a_withdrawn_key_ends_streams_publishers_and_tickets_and_no_others(
    issuer: Issuer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REFRESH_SECONDS", 0.05)
    monkeypatch.setattr(Keys.__init__, "__kwdefaults__", {"again": 0.0})
    issuer.names = ["one", "two"]
    served = await serve(token_jwks=issuer.url)
    bearer = {name: {"Authorization": f"Bearer {signed(name)}"} for name in ("one", "two")}
    for name in ("one", "two"):
        body = {"events": [{"topic": "t"}]}
        assert (await served.call("POST", f"/v1/sessions/{name}/events", json=body, headers=bearer[name]))[0] == 200
    streams = {name: await served.stream(name, **bearer[name]) for name in bearer}
    durable = await served.http.get("/v1/stream/one?offset=-1&live=sse", headers=bearer["one"])
    feed = await served.http.get("/v1/feed?session=one", headers=bearer["one"])
    poll = asyncio.create_task(
        served.call("GET", "/v1/sessions/one/events?from=now&wait=60", headers=bearer["one"]), name="poll"
    )
    sockets = [
        await served.http.ws_connect(path, headers=bearer[name])
        for name, path in (("one", "/v1/feed"), ("one", "/v1/publish"), ("two", "/v1/publish"))
    ]
    _, given = await served.call("POST", "/v1/tickets", headers=bearer["one"])
    assert [(await stream.next())["topic"] for stream in streams.values()] == ["t", "t"]
    issuer.names = ["two"]
    async with asyncio.timeout(60):
        assert await streams["one"].rest() == []
        for cut in (durable, feed):
            with suppress(aiohttp.ClientError):
                await cut.read()
            cut.close()
        for socket in sockets[:2]:
            assert (await socket.receive()).type is aiohttp.WSMsgType.TEXT  # `ready`
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
            assert socket.close_code == 4401
    status, _ = await served.call("GET", f"/v1/sessions/one/events?ticket={given['ticket']}")
    assert status == 401
    await served.call("POST", "/v1/sessions/one/events", json={"events": [{"topic": "t"}]}, headers=bearer["two"])
    assert (await poll)[0] == 401
    await served.call("POST", "/v1/sessions/two/events", json={"events": [{"topic": "u"}]}, headers=bearer["two"])
    assert (await streams["two"].next())["topic"] == "u", "another key's goes on"
    await sockets[2].send_str('{"type":"ping"}')
    assert [(await sockets[2].receive_json())["type"] for _ in range(2)] == ["ready", "pong"]
    for socket in sockets:
        await socket.close()
