"""Browsers register their subscriptions for the token's user, and only those are used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.pushes import PUBLIC_KEY, Browser, PushService, channel, push_service
from tests.support import Served
from tests.tokens import SECRET, bearer
from tests.unit.conftest import Serve
from wakeline.errors import SettingsInvalidError
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.notifications import Outcome, Subscription, Subscriptions
from wakeline.gateway.notifications.subscriptions import FAILING, MOST_SUBSCRIPTIONS

TWO_GATEWAYS = True
PATH = "/v1/push/subscriptions"


@pytest.fixture
async def service() -> AsyncIterator[PushService]:
    async with push_service() as found:
        yield found


def holder(user: str, *allow: str, sessions: str = "mine-*") -> dict[str, str]:
    return bearer(sub=user, sessions=[sessions], allow=list(allow or ["ack"]))


async def start(serve: Serve, **changed: Any) -> Served:
    return await serve(channels={"phones": channel()}, **changed)


async def devices(served: Served, query: str = "", **how: Any) -> list[str]:
    code, answer = await served.call("GET", f"{PATH}?{query}", **how)
    assert code == 200, answer
    return [found["device"] for found in answer["subscriptions"]]


async def test_the_public_key_can_be_read(serve: Serve) -> None:
    served = await start(serve, token_secret=SECRET)
    assert await served.call("GET", "/v1/push", headers=holder("ada", "read")) == (200, {"public_key": PUBLIC_KEY})
    assert (await served.call("GET", "/v1/push"))[0] == 401


async def test_a_gateway_without_the_channel_says_so(serve: Serve, service: PushService) -> None:
    served = await serve()
    for method, path in (("GET", "/v1/push"), ("PUT", f"{PATH}/phone")):
        code, answer = await served.call(method, path, json=service.browser("phone").subscription())
        assert (code, answer["error"]["code"]) == (404, "not_found")
        assert "web_push" in answer["error"]["hint"]
    assert await devices(served) == []
    assert (await served.call("DELETE", f"{PATH}/phone"))[0] == 204


async def test_a_subscription_is_listed_without_its_secrets(serve: Serve, service: PushService) -> None:
    served = await start(serve, token_secret=SECRET)
    answer = await service.browser("phone").subscribe(served, headers=holder("ada"))
    assert (answer["device"], answer["user"], answer["service"]) == ("phone", "ada", service.url)
    code, listed = await served.call("GET", PATH, headers=holder("ada"))
    assert (code, listed) == (200, {"subscriptions": [answer]})
    assert set(answer) == {"device", "user", "service", "registered"}


async def test_a_device_has_one_subscription_and_a_browser_one_device(serve: Serve, service: PushService) -> None:
    served = await start(serve)
    await service.browser("first").subscribe(served, "phone")
    await service.browser("second").subscribe(served, "phone")
    assert await devices(served) == ["phone"]
    await service.browser("second").subscribe(served, "tablet")
    assert await devices(served) == ["tablet"]


async def test_a_subscription_is_removed(serve: Serve, service: PushService) -> None:
    served = await start(serve)
    await service.browser("phone").subscribe(served)
    await service.browser("laptop").subscribe(served)
    assert (await served.call("DELETE", f"{PATH}/phone"))[0] == 204
    assert (await served.call("DELETE", f"{PATH}/phone"))[0] == 204
    assert await devices(served) == ["laptop"]


async def test_a_user_has_a_bounded_number_of_subscriptions(serve: Serve, service: PushService) -> None:
    served = await start(serve)
    names = [f"d{number:02d}" for number in range(MOST_SUBSCRIPTIONS + 2)]
    for name in names:
        await service.browser(name).subscribe(served)
    assert await devices(served) == names[2:]


async def test_a_browser_that_another_user_registers_is_theirs(serve: Serve, service: PushService) -> None:
    served = await start(serve, token_secret=SECRET)
    shared = service.browser("shared")
    await shared.subscribe(served, headers=holder("ada"))
    await shared.subscribe(served, headers=holder("bob"))
    assert await devices(served, headers=holder("ada")) == []
    assert await devices(served, headers=holder("bob")) == ["shared"]
    assert (await served.call("DELETE", f"{PATH}/shared", headers=holder("ada")))[0] == 204
    assert await devices(served, headers=holder("bob")) == ["shared"], "it was no longer hers to remove"


async def test_only_a_token_that_manages_all_sessions_reaches_other_users(serve: Serve, service: PushService) -> None:
    served = await start(serve, token_secret=SECRET)
    await service.browser("phone").subscribe(served, headers=holder("ada"))
    for refused in (holder("eve"), holder("eve", "ack", "manage"), holder("eve", "manage", sessions="*")):
        for method, path in (("GET", f"{PATH}?user=ada"), ("DELETE", f"{PATH}/phone?user=ada")):
            code, answer = await served.call(method, path, headers=refused)
            assert (code, answer["error"]["code"]) == (403, "not_allowed")
    assert (await served.call("GET", PATH, headers=holder("ada", "read")))[0] == 403
    admin = holder("root", "ack", "manage", sessions="*")
    assert await devices(served, "user=ada", headers=admin) == ["phone"]
    assert (await served.call("DELETE", f"{PATH}/phone?user=ada", headers=admin))[0] == 204
    assert await devices(served, headers=holder("ada")) == []


def _wrong(browser: Browser, **changed: Any) -> dict[str, Any]:
    whole = browser.subscription()
    keys = {**whole["keys"], **{key: value for key, value in changed.items() if key != "endpoint"}}
    return {**whole, "endpoint": changed.get("endpoint", whole["endpoint"]), "keys": keys}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"endpoint": "http://push.example.com/x"}, "https"),
        ({"endpoint": "https://10.0.0.7/x"}, "public"),
        ({"endpoint": 7}, "str"),
        ({"auth": "c2hvcnQ"}, "16 bytes"),
        ({"auth": "no base64url!"}, "base64url"),
        ({"p256dh": "c2hvcnQ"}, "P-256"),
        ({"p256dh": "B" + "A" * 86}, "P-256"),
        ({"p256dh": None}, "str"),
    ],
)
async def test_a_subscription_that_nothing_could_be_sent_to_is_refused(
    serve: Serve, service: PushService, changed: dict[str, Any], said: str
) -> None:
    served = await start(serve)
    code, answer = await served.call("PUT", f"{PATH}/phone", json=_wrong(service.browser("phone"), **changed))
    assert (code, answer["error"]["code"]) == (400, "body_invalid")
    assert said in answer["error"]["message"]
    assert await devices(served) == []


async def test_one_key_is_enough_for_a_gateway(serve: Serve) -> None:
    with pytest.raises(SettingsInvalidError, match="at most one"):
        await serve(channels={"phones": channel(), "tablets": channel()})


def subscription(device: str, **changed: Any) -> Subscription:
    return Subscription(device, f"https://push.example.com/{device}", "p", "a", 0.0, **changed)


async def test_a_subscription_that_fails_for_five_days_is_removed() -> None:
    kept = Subscriptions(MemoryEngine())
    await kept.put("ada", subscription("phone"))
    failed = [(subscription("phone"), Outcome("failed", "500"))]
    assert await kept.note("ada", failed, 100.0) == []
    assert await kept.note("ada", failed, 100.0 + FAILING - 1) == []
    assert await kept.note("ada", [(subscription("phone"), Outcome("delivered", "201"))], 200.0) == []
    assert await kept.note("ada", failed, 300.0) == []
    assert await kept.note("ada", failed, 299.0 + FAILING) == []
    assert await kept.note("ada", failed, 300.0 + FAILING) == ["failing"]
    assert await kept.of("ada") == []


async def test_a_subscription_that_was_registered_anew_outlives_the_end_of_the_old_one() -> None:
    kept = Subscriptions(MemoryEngine())
    old, new = subscription("old"), Subscription("old", "https://push.example.com/new", "p", "a", 1.0)
    await kept.put("ada", old)
    await kept.put("ada", new)
    assert await kept.note("ada", [(old, Outcome("gone", "410"))], 2.0) == []
    assert await kept.of("ada") == [new]


async def test_nothing_remains_of_a_subscription_that_was_removed() -> None:
    engine = MemoryEngine()
    kept = Subscriptions(engine)
    await kept.put("ada", subscription("phone"))
    await kept.remove("ada", "phone")
    assert await engine.records("notifications/") == []
