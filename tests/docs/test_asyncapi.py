"""`docs/reference/asyncapi.yaml`, PROTOCOL.md §5 and the code tell of the same frames."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
import msgspec
import pytest
import yaml  # type: ignore[import-untyped]

from tests.docs.markdown import sections, span, tables, text
from tests.feeds import Feed, feed
from tests.support import Served
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import Settings
from wakeline.gateway.transports import feed_frames
from wakeline.gateway.transports.feed_frames import ClientFrame, ServerFrame

DOCUMENT: dict[str, Any] = yaml.safe_load(text("docs/reference/asyncapi.yaml"))
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]


def below(base: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    return [kind for kind in vars(feed_frames).values() if isinstance(kind, type) and base in kind.__mro__[1:]]


FRAMES = below(ClientFrame) + below(ServerFrame)


def schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The code's own idea of a frame."""
    found: dict[str, Any] = msgspec.json.schema_components([kind])[1][kind.__name__]
    return found


def plain(value: Any) -> Any:
    """A schema without what is told for people; a string may be told more exactly, and a choice is a set."""
    match value:
        case {"$ref": str(name)}:
            return plain(SCHEMAS[name.rpartition("/")[2]])
        case {"enum": choices}:
            return {"enum": sorted(choices), "default": value.get("default")}
        case {"anyOf": [one, {"type": "null"}]}:
            return plain(one)
        case {"type": "string"}:
            return {"type": "string", "default": value.get("default")}
        case {"type": "object"}:
            return {"type": "object"}
        case {"type": "array"}:
            return {"type": "array", "items": plain(value["items"])}
        case dict():
            return {key: plain(one) for key, one in value.items() if key not in ("description", "title")}
        case _:
            return value


@pytest.mark.parametrize("kind", FRAMES, ids=lambda kind: kind.__name__)
def test_every_frame_is_documented_as_it_is(kind: type[msgspec.Struct]) -> None:
    coded, documented = schema(kind), SCHEMAS[kind.__name__]
    tag = coded["properties"].pop("type")["enum"]
    properties = dict(documented["properties"])
    assert tag == [properties.pop("type")["const"]]
    assert sorted(coded["required"]) == sorted(documented["required"])
    assert coded.get("additionalProperties", True) == documented.get("additionalProperties", True)
    assert {name: plain(one) for name, one in properties.items()} == {
        name: plain(one) for name, one in coded["properties"].items()
    }


def test_no_other_frame_is_documented_and_each_is_in_its_direction() -> None:
    messages = {kind.__name__ for kind in FRAMES}
    assert set(DOCUMENT["components"]["messages"]) == set(DOCUMENT["channels"]["feed"]["messages"]) == messages
    for operation, base in (("ask", ClientFrame), ("tell", ServerFrame)):
        named = {one["$ref"].rpartition("/")[2] for one in DOCUMENT["operations"][operation]["messages"]}
        assert named == {kind.__name__ for kind in below(base)}


def test_every_reference_leads_somewhere() -> None:
    for path in re.findall(r'\$ref: "#/([^"]+)"', text("docs/reference/asyncapi.yaml")):
        found: Any = DOCUMENT
        for part in path.split("/"):
            found = found[part]


def test_the_protocol_s_tables_have_the_frames_and_their_fields() -> None:
    feed_section = next(body for heading, body in sections(text("PROTOCOL.md")).items() if heading.startswith("5."))
    asked, told, *_ = tables(feed_section)
    for rows, base in ((asked, ClientFrame), (told, ServerFrame)):
        in_protocol = [span(row["frame"]) for row in rows]
        in_code = {kind.__struct_config__.tag: schema(kind)["properties"] for kind in below(base)}
        fields = {}
        for frame in in_protocol:
            kind = re.findall(r'"type": "(\w+)"', frame)[0]
            rest = re.sub(r': "[^"]*"( \\?\| "[^"]*")*', "", frame)  # without values
            fields[kind] = set(re.findall(r'"(\w+)"\??(?=[,:}])', rest)) - {"type"}
        assert {kind: names | {"type"} for kind, names in fields.items()} == {
            kind: set(properties) for kind, properties in in_code.items()
        }


async def test_what_the_gateway_sends_is_as_documented() -> None:
    """Every frame that it has, in one conversation, by another validator than the one that made them."""
    async with gateway(Settings(engine="memory", port=0, no_auth=True)) as url, Served(url) as served:
        await served.publish("s", {"topic": "t", "data": {"text": "é"}})
        async with feed(served, "?device=phone", ready=False) as client:
            await client.next("ready")
            cursor = (await client.subscribe("s", presence=True))["cursor"]
            frames = [await client.next() for _ in range(2)]
            await client.send("ack", "s", seen=cursor)
            await client.next("acked")
            await client.send("token", token="any, where nobody is asked")
            await client.next("token")
            await client.send("ping", data=[1])
            await client.next("pong")
            await client.send("unsubscribe", "s")
            await client.next("unsubscribed")
            await client.send("unsubscribe", "s")
            await client.error()
            assert (await served.call("POST", "/v1/sessions/s/close"))[0] == 200
            await client.subscribe("s")
            await until_end(client)
    assert {frame["type"] for frame in frames} == {"presence", "events"}
    assert {frame["type"] for frame in client.frames} == {kind.__struct_config__.tag for kind in below(ServerFrame)}
    for frame in client.frames:
        (name,) = [kind.__name__ for kind in below(ServerFrame) if kind.__struct_config__.tag == frame["type"]]
        referring = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": SCHEMAS}}
        jsonschema_rs.validate(referring, json.loads(json.dumps(frame)))


async def until_end(client: Feed) -> None:
    while (await client.next())["type"] != "end":
        continue
