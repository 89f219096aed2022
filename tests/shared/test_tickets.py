"""A ticket that one gateway has issued is good at every gateway, once in all of them."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.shared.conftest import Gateway, Start
from tests.tokens import SECRET, bearer, jwk, token
from wakeline.gateway.access import keys as keys_module
from wakeline.gateway.access import tickets as tickets_module


async def publish(served: Gateway, **headers: str) -> None:
    body = {"events": [{"topic": "t", "data": 1}]}
    assert (await served.call("POST", "/v1/sessions/s/events", json=body, headers=headers))[0] == 200


async def ticket(served: Gateway, headers: dict[str, str]) -> str:
    status, given = await served.call("POST", "/v1/tickets", headers=headers)
    assert status == 200, given
    assert given["expires_in"] == 30
    return str(given["ticket"])


async def used(served: Gateway, given: str, session: str = "s") -> int:
    return (await served.call("GET", f"/v1/sessions/{session}/events?from=beginning&ticket={given}"))[0]


async def test_a_ticket_of_one_gateway_opens_a_stream_at_another(start: Start) -> None:
    first, second = await start(token_secret=SECRET), await start(token_secret=SECRET)
    await publish(first, **bearer())
    given = await ticket(first, bearer(sessions=["s"], allow=["read"]))
    stream = await second.stream("s", f"ticket={given}")
    assert (await stream.next())["data"] == 1
    assert await used(second, await ticket(first, bearer(sessions=["other"], allow=["read"]))) == 404


async def test_a_ticket_is_used_once_although_all_gateways_receive_it_at_once(start: Start) -> None:
    gateways = [await start(token_secret=SECRET) for _ in range(3)]
    await publish(gateways[0], **bearer())
    for _ in range(5):
        given = await ticket(gateways[0], bearer())
        assert sorted(await asyncio.gather(*(used(served, given) for served in gateways * 2))) == [200, *[401] * 5]


async def test_an_unused_ticket_expires_at_every_gateway_and_leaves_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tickets_module, "TICKET_SECONDS", 6)
    first, second = await start(token_secret=SECRET), await start(token_secret=SECRET)
    await publish(first, **bearer())
    headers = bearer()
    given = [str((await first.call("POST", "/v1/tickets", headers=headers))[1]["ticket"]) for _ in range(2)]
    assert await used(second, given[0]) == 200
    async with asyncio.timeout(60):
        while await second.engine.records("tickets/"):
            await asyncio.sleep(0.1)
    assert await used(second, given[1]) == await used(first, given[1]) == 401


async def test_a_ticket_whose_gateway_is_killed_is_good_for_a_while_and_then_removed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tickets_module, "TICKET_SECONDS", 6)
    first, second = await start(token_secret=SECRET), await start(token_secret=SECRET)
    await publish(first, **bearer())
    headers = bearer()
    given = [str((await first.call("POST", "/v1/tickets", headers=headers))[1]["ticket"]) for _ in range(2)]
    first.engine.cut = True
    assert await used(second, given[0]) == 200
    async with asyncio.timeout(60):
        while await second.engine.records("tickets/"):
            await asyncio.sleep(0.1)
    assert await used(second, given[1]) == 401


async def test_a_ticket_ends_with_its_token_and_with_the_key_that_signed_it(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "_REFRESH_SECONDS", 0.05)
    monkeypatch.setattr(keys_module.Keys.__init__, "__kwdefaults__", {"again": 0.0})
    signing = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("one", "two")}
    file = tmp_path / "keys.json"

    def write(*names: str) -> None:
        file.write_text(json.dumps({"keys": [jwk(signing[name], name) for name in names]}))

    def signed(name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token(signing[name], 'ES256', {'kid': name})}"}

    write("one", "two")
    first, second = [await start(token_secret=SECRET, token_jwks=str(file)) for _ in range(2)]
    await publish(first, **bearer())
    exp = time.time() + 10
    short = await ticket(first, bearer(exp=exp))
    one, two, also = [await ticket(first, signed(name)) for name in ("one", "two", "one")]
    assert await used(second, one) == 200
    write("two")
    async with asyncio.timeout(60):
        while (await second.call("GET", "/v1/sessions/s/events", headers=signed("one")))[0] != 401:
            await asyncio.sleep(0.05)
    assert await used(second, also) == 401
    assert await used(second, two) == 200
    await asyncio.sleep(max(0, exp + 0.1 - time.time()))
    assert await used(second, short) == 401
