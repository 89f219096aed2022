from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.support import Served
from tests.tokens import SECRET, bearer
from tests.unit.conftest import Serve

TWO_GATEWAYS = True

DEVICES = "/v1/sessions/s/devices"


@pytest.fixture
async def epoch(served: Served) -> str:
    answer = await served.publish("s", *({"topic": "t", "data": n} for n in range(10)))
    return str(answer["epoch"])


@pytest.fixture
async def asking(serve: Serve) -> Served:
    """A gateway that asks who calls, with ten events in session `s`."""
    opened = await serve(token_secret=SECRET, engine="memory")
    body = {"events": [{"topic": "t", "data": n} for n in range(10)]}
    assert (await opened.call("POST", "/v1/sessions/s/events", json=body, headers=bearer()))[0] == 200
    return opened


async def cursor_of(served: Served, offset: int) -> str:
    _, state = await served.call("GET", "/v1/sessions/s", headers=bearer())
    return f"{state['epoch']}-{offset}"


def as_user(user: str, *allow: str, sessions: tuple[str, ...] = ("s",)) -> dict[str, str]:
    return bearer(sub=user, sessions=list(sessions), allow=list(allow))


async def test_a_device_acknowledges_is_listed_and_forgotten(served: Served, epoch: str) -> None:
    status, answer = await served.call("PUT", f"{DEVICES}/phone", json={"seen": f"{epoch}-7"})
    assert status == 200
    assert list(answer) == ["device", "user", "delivered", "seen", "lag", "connected", "transports", "last_active"]
    assert answer["last_active"].endswith("Z")
    rest = {name: value for name, value in answer.items() if name != "last_active"}
    assert rest == {
        "device": "phone",
        "user": "",
        "delivered": None,
        "seen": f"{epoch}-7",
        "lag": 3,
        "connected": False,
        "transports": [],
    }
    assert await served.call("GET", DEVICES) == (200, {"devices": [answer]})
    for _ in range(2):
        assert await served.call("DELETE", f"{DEVICES}/phone") == (204, None)
    assert await served.call("GET", DEVICES) == (200, {"devices": []})


async def test_an_older_cursor_changes_nothing(served: Served, epoch: str) -> None:
    await served.call("PUT", f"{DEVICES}/phone", json={"seen": f"{epoch}-7"})
    status, answer = await served.call("PUT", f"{DEVICES}/phone", json={"seen": f"{epoch}-2"})
    assert (status, answer["seen"], answer["lag"]) == (200, f"{epoch}-7", 3)


async def test_everywhere_is_for_the_users_other_devices_too(served: Served, epoch: str) -> None:
    for device in ("phone", "laptop"):
        await served.call("PUT", f"{DEVICES}/{device}", json={"seen": f"{epoch}-1"})
    await served.call("PUT", f"{DEVICES}/phone", json={"seen": f"{epoch}-5", "everywhere": True})
    _, answer = await served.call("GET", DEVICES)
    assert [(d["device"], d["seen"]) for d in answer["devices"]] == [("laptop", f"{epoch}-5"), ("phone", f"{epoch}-5")]


@pytest.mark.parametrize("device", ["a", "x" * 128, "a/b", "%2F", "../..", "!~", "😀".encode().hex(), '"\\<>'])
async def test_a_device_may_have_any_visible_name(served: Served, epoch: str, device: str) -> None:
    path = f"{DEVICES}/{quote(device, safe='')}"
    status, answer = await served.call("PUT", path, json={"seen": f"{epoch}-7"})
    assert (status, answer["device"]) == (200, device)
    assert (await served.call("DELETE", path))[0] == 204
    assert (await served.call("GET", DEVICES))[1]["devices"] == []


@pytest.mark.parametrize("device", ["x" * 129, "a b", "a\n", "\x7f", "é", "a\u2028"])
async def test_a_device_may_not_have_another(served: Served, epoch: str, device: str) -> None:
    for method in ("PUT", "DELETE"):
        status, answer = await served.call(
            method, f"{DEVICES}/{quote(device, safe='')}", json={"seen": f"{epoch}-7"} if method == "PUT" else None
        )
        assert (status, answer["error"]["code"]) == (400, "request_invalid")
        message = answer["error"]["message"]
        assert message == f"expected a device id of 1 to 128 visible ASCII characters, got {device[:40]!r}"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "body_invalid"),
        (b"{}", 400, "body_invalid"),
        (b"[]", 400, "body_invalid"),
        (b'{"seen": 7}', 400, "body_invalid"),
        (b'{"seen": null}', 400, "body_invalid"),
        (b'{"seen": "%s-1", "everywhere": 1}', 400, "body_invalid"),
        (b'{"seen": "%s-1", "delivered": "%s-1"}', 400, "body_invalid"),
        (b'{"seen": "\xff"}', 400, "body_invalid"),
        (b'{"seen": "%s-1"} x', 400, "body_invalid"),
        (b"[" * 100_000, 400, "body_invalid"),
        (b'{"seen": ""}', 400, "cursor_invalid"),
        (b'{"seen": "beginning"}', 400, "cursor_invalid"),
        (b'{"seen": "%s-9223372036854775808"}', 400, "cursor_invalid"),
        (b'{"seen": "%s-11"}', 409, "cursor_ahead"),
        (b'{"seen": "aaaaaaaaaa-1"}', 410, "epoch_changed"),
    ],
)
async def test_what_is_no_acknowledgement(served: Served, epoch: str, body: bytes, status: int, code: str) -> None:
    content = body.replace(b"%s", epoch.encode())
    got, answer = await served.call("PUT", f"{DEVICES}/phone", data=content)
    assert (got, answer["error"]["code"]) == (status, code)
    if code == "body_invalid":
        assert answer["error"]["message"].startswith('expected {"seen": "…", "everywhere": true}, got: ')
        assert answer["error"]["hint"] == "Send a body of the form that the message names."
    assert (await served.call("GET", DEVICES))[1]["devices"] == []


async def test_a_user_has_at_most_256_bytes(served: Served, epoch: str) -> None:
    for user, expected in (("x" * 256, 200), ("😀" * 64, 200), ("%ED%A0%80", 400), ("x" * 257, 400), ("😀" * 65, 400)):
        query = user if "%" in user else quote(user)
        status, _ = await served.call("PUT", f"{DEVICES}/phone?user={query}", json={"seen": f"{epoch}-1"})
        assert status == expected
    assert (await served.call("GET", f"{DEVICES}?user={'x' * 257}"))[0] == 400


async def test_without_a_session_there_is_no_device(served: Served, epoch: str) -> None:
    for method, path in (("GET", ""), ("PUT", "/phone"), ("DELETE", "/phone")):
        how: dict[str, Any] = {"json": {"seen": f"{epoch}-1"}} if method == "PUT" else {}
        status, answer = await served.call(method, f"/v1/sessions/none/devices{path}", **how)
        assert (status, answer["error"]["code"]) == (404, "session_not_found")
    status, answer = await served.call("PATCH", f"{DEVICES}/phone")
    assert (status, answer["error"]["code"]) == (405, "method_not_allowed")


async def test_one_sees_ones_own_devices_and_who_manages_everybodys(asking: Served) -> None:
    seen = {"seen": await cursor_of(asking, 4)}
    for user in ("alice", "bob"):
        status, answer = await asking.call("PUT", f"{DEVICES}/phone", json=seen, headers=as_user(user, "ack"))
        assert (status, answer["user"]) == (200, user)

    async def users(headers: dict[str, str], query: str = "") -> list[str]:
        status, answer = await asking.call("GET", f"{DEVICES}{query}", headers=headers)
        assert status == 200
        return [device["user"] for device in answer["devices"]]

    assert await users(as_user("alice", "ack")) == ["alice"]
    assert await users(as_user("alice", "ack"), "?user=alice") == ["alice"]
    assert await users(as_user("carol", "ack")) == []
    assert await users(as_user("carol", "manage")) == ["alice", "bob"]
    assert await users(as_user("carol", "manage"), "?user=bob") == ["bob"]
    assert await users(as_user("carol", "manage"), "?user=") == []


async def test_who_manages_may_change_others_devices(asking: Served) -> None:
    manager, bob = as_user("carol", "manage"), as_user("bob", "ack")
    seen = {"seen": await cursor_of(asking, 4)}
    status, answer = await asking.call("PUT", f"{DEVICES}/phone?user=bob", json=seen, headers=manager)
    assert (status, answer["user"]) == (200, "bob")
    assert len((await asking.call("GET", DEVICES, headers=bob))[1]["devices"]) == 1
    assert (await asking.call("DELETE", f"{DEVICES}/phone?user=bob", headers=manager))[0] == 204
    assert (await asking.call("GET", DEVICES, headers=bob))[1]["devices"] == []


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "", ["read", "publish", "input"]),
        ("PUT", "/phone", ["read", "publish", "input"]),
        ("DELETE", "/phone", ["read", "publish", "input"]),
        ("PUT", "/phone", ["manage"]),
        ("GET", "?user=bob", ["ack"]),
        ("PUT", "/phone?user=bob", ["read", "ack", "publish", "input"]),
        ("DELETE", "/phone?user=bob", ["read", "ack", "publish", "input"]),
    ],
)
async def test_what_the_token_does_not_allow(asking: Served, method: str, path: str, allow: list[str]) -> None:
    seen = {"seen": await cursor_of(asking, 4)}
    how: dict[str, Any] = {"json": seen} if method == "PUT" else {}
    status, answer = await asking.call(method, f"{DEVICES}{path}", headers=as_user("alice", *allow), **how)
    assert (status, answer["error"]["code"]) == (403, "not_allowed")


async def test_sessions_out_of_reach_answer_as_those_that_are_not_there(asking: Served) -> None:
    seen = {"seen": await cursor_of(asking, 4)}
    elsewhere = as_user("alice", "ack", "manage", sessions=("t*",))
    for method, path in (("GET", ""), ("PUT", "/phone"), ("DELETE", "/phone")):
        how: dict[str, Any] = {"json": seen} if method == "PUT" else {}
        answers = []
        for session, headers in (
            ("s", elsewhere),
            ("none", elsewhere),
            ("none", as_user("alice", "ack", sessions=("*",))),
        ):
            status, answer = await asking.call(method, f"/v1/sessions/{session}/devices{path}", headers=headers, **how)
            answers.append(
                (status, answer["error"] | {"message": answer["error"]["message"].replace(repr(session), "?")})
            )
        assert answers[0] == answers[1] == answers[2]
        assert answers[0][0] == 404


async def test_positions_survive_a_restart(serve: Serve, tmp_path: object) -> None:
    from wakeline.gateway.app import gateway
    from wakeline.gateway.settings import Settings

    settings = Settings(data=f"{tmp_path}/own", port=0, no_auth=True)
    async with gateway(settings) as url, Served(url) as served:
        answer = await served.publish("s", *({"topic": "t", "data": n} for n in range(10)))
        stream = await served.stream("s", "device=phone")
        await stream.take(10)
        await served.call("PUT", f"{DEVICES}/phone", json={"seen": f"{answer['epoch']}-7"})
        stream.close()
    async with gateway(settings) as url, Served(url) as served:
        _, listed = await served.call("GET", DEVICES)
    (phone,) = listed["devices"]
    assert (phone["delivered"], phone["seen"], phone["connected"]) == (
        f"{answer['epoch']}-10",
        f"{answer['epoch']}-7",
        False,
    )


async def test_connected_devices_are_counted(served: Served, epoch: str) -> None:
    stream = await served.stream("s", "device=phone")
    await stream.next()
    assert await served.metric("wakeline_devices_connected") == 1
    stream.close()
