"""`wakeline notifications`, as a person runs it."""

from __future__ import annotations

import asyncio
import json
import tomllib

from tests.commands import wakeline
from tests.pushes import channel
from tests.receivers import receiver, status
from tests.unit.conftest import Serve
from wakeline.gateway.rules import Notify


async def test_dead_letters_are_listed_shown_and_sent_again(serve: Serve) -> None:
    async with receiver() as hook:
        hook.answers.append(status(400, webhook_delivery="abort-message"))
        served = await serve(
            notify={"alerts": Notify(topics=("alert",), users=("ada",), grace=0)},
            channels={"ops": hook.channel()},
            outgoing_networks=("127.0.0.1",),
        )
        url = ("--url", served.url)
        assert await wakeline("notifications", "list", *url) == (0, "no notifications\n", "")
        await served.publish("order/1", {"topic": "alert", "data": 1})
        async with asyncio.timeout(60):
            while not (out := (await wakeline("notifications", "list", "--state", "dead", "--json", *url))[1]):
                await asyncio.sleep(0.05)
        name = json.loads(out)["id"]
        code, out, err = await wakeline("notifications", "list", *url)
        assert (code, err) == (0, "")
        columns = ["order/1", name, "ada", "ops", "dead", "1", "1", "400,", "abort-message"]
        assert out.splitlines()[1].split() == columns
        _, narrow, _ = await wakeline("notifications", "list", *url, environment={"COLUMNS": "40"})
        assert narrow == out  # show and retry need the whole id
        code, out, _ = await wakeline("notifications", "show", "order/1", name, *url)
        assert (code, json.loads(out)["events"][0]["data"]) == (0, 1)
        code, out, _ = await wakeline("notifications", "retry", "order/1", name, *url)
        assert (code, json.loads(out)["state"]) == (0, "pending")
        assert [request.id for request in await hook.until(2)] == [name, name]
        async with asyncio.timeout(60):
            while not (await wakeline("notifications", "list", "--state", "delivered", "--json", *url))[1]:
                await asyncio.sleep(0.05)
        code, out, _ = await wakeline("notifications", "retry", "--state", "delivered", "--channel", "ops", *url)
        assert (code, out) == (0, "retried 1\n")
        code, _, err = await wakeline("notifications", "retry", "--channel", "opps", *url)
        assert code == 2
        assert "expected channel to be one of the settings' channels (ops), got 'opps'" in err
        assert len(await hook.until(3)) == 3


async def test_a_notification_that_there_is_not_is_refused(serve: Serve) -> None:
    served = await serve()
    await served.publish("s", {"topic": "t", "data": 1})
    code, _, err = await wakeline("notifications", "retry", "s", "msg_x", "--url", served.url)
    assert code == 2
    assert err.startswith("notification_not_found: ")


async def test_new_keys_are_accepted_by_a_gateway(serve: Serve) -> None:
    code, out, err = await wakeline("notifications", "keys")
    assert (code, err) == (0, "")
    private = tomllib.loads(out)["private_key"]
    served = await serve(channels={"phones": channel(private_key=private)})
    _, answer = await served.call("GET", "/v1/push")
    assert out.split()[-1] == answer["public_key"]
    assert out != (await wakeline("notifications", "keys"))[1]


async def test_a_time_is_refused_by_the_option_that_it_was_given_with() -> None:
    for option in ("--since", "--before"):
        code, _, err = await wakeline("notifications", "retry", option, "yesterday")
        assert code == 2
        assert f"expected {option} to be a time such as 2026-11-29T06:00:00Z, got 'yesterday'" in err


async def test_an_id_is_required(serve: Serve) -> None:
    code, _, err = await wakeline("notifications", "show", "s")
    assert code == 2
    assert "expected a session and a notification's id after show" in err
