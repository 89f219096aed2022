"""The AsyncAPI documents, PROTOCOL.md and the code tell of the same frames."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
import msgspec
import pytest
import yaml  # type: ignore[import-untyped]

from tests.docs.markdown import sections, tables, text
from tests.feeds import Feed, feed
from tests.publishers import line
from tests.support import Served
from tests.upstream import recording
from wakeline.gateway.app import gateway
from wakeline.gateway.inputs import Asked
from wakeline.gateway.log import NewSession
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.sessions import NOT_FOUND, Intent, Intents, Settled
from wakeline.gateway.settings import Settings
from wakeline.gateway.transports import feed_frames, publish_frames

Kind = type[msgspec.Struct]


def below(base: Kind) -> list[Kind]:
    return [kind for kind in vars(feed_frames).values() if isinstance(kind, type) and base in kind.__mro__[1:]]


class Described:
    """One WebSocket: its document, the channel's name in it, its tables in PROTOCOL.md, and its frames in code."""

    def __init__(
        self, name: str, channel: str, section: str, heading: str, asked: list[Kind], told: list[Kind]
    ) -> None:
        self.path = f"docs/reference/{name}.yaml"
        self.document: dict[str, Any] = yaml.load(text(self.path), Loader=yaml.CSafeLoader)
        self.schemas: dict[str, Any] = self.document["components"]["schemas"]
        self.channel, self.section, self.heading = channel, section, heading
        self.asked, self.told = asked, told

    def plain(self, value: Any) -> Any:
        """A schema without what is told for people; a string may be told more exactly, and a choice is a set."""
        match value:
            case {"$ref": str(name)}:
                return self.plain(self.schemas[name.rpartition("/")[2]])
            case {"enum": choices}:
                return {"enum": sorted(choices), "default": value.get("default")}
            case {"anyOf": [one, {"type": "null"}]}:
                return self.plain(one)
            case {"type": "string"}:
                return {"type": "string", "default": value.get("default")}
            case {"type": "object"}:
                return {"type": "object"}
            case {"type": "array"}:
                return {"type": "array", "items": self.plain(value["items"])}
            case dict():
                return {key: self.plain(one) for key, one in value.items() if key not in ("description", "title")}
            case _:
                return value


FEED = Described("asyncapi", "feed", "5.", "", below(feed_frames.ClientFrame), below(feed_frames.ServerFrame))
PUBLISHING = Described(
    "asyncapi-publishing",
    "publish",
    "3.",
    "`GET /v1/publish`",
    [
        publish_frames.Open,
        publish_frames.Append,
        publish_frames.Close,
        publish_frames.Nudge,
        feed_frames.Token,
        feed_frames.Ping,
    ],
    [
        publish_frames.Opened,
        publish_frames.Appended,
        publish_frames.Error,
        publish_frames.Warning,
        feed_frames.Ready,
        feed_frames.TokenTaken,
        feed_frames.Pong,
    ],
)
BOTH = pytest.mark.parametrize("described", [FEED, PUBLISHING], ids=lambda one: one.channel)


def schema(kind: Kind) -> dict[str, Any]:
    """The code's own idea of a frame, with what it refers to in place."""
    found = msgspec.json.schema_components([kind], ref_template="{name}")[1]
    result: dict[str, Any] = resolved(found[kind.__name__], found)
    return result


def resolved(value: Any, among: dict[str, Any]) -> Any:
    match value:
        case {"$ref": str(name)}:
            return resolved(among[name], among)
        case dict():
            return {key: resolved(one, among) for key, one in value.items()}
        case list():
            return [resolved(one, among) for one in value]
        case _:
            return value


@pytest.mark.parametrize(
    ("described", "kind"),
    [(one, kind) for one in (FEED, PUBLISHING) for kind in one.asked + one.told],
    ids=lambda value: value.channel if isinstance(value, Described) else value.__name__,
)
def test_every_frame_is_documented_as_it_is(described: Described, kind: Kind) -> None:
    coded, documented = schema(kind), described.schemas[kind.__name__]
    tag = coded["properties"].pop("type")["enum"]
    properties = dict(documented["properties"])
    assert tag == [properties.pop("type")["const"]]
    assert sorted(coded["required"]) == sorted(documented["required"])
    assert coded.get("additionalProperties", True) == documented.get("additionalProperties", True)
    without_default = {"default": None}
    assert {name: without_default | _dict(described.plain(one)) for name, one in properties.items()} == {
        name: without_default | _dict(described.plain(one)) for name, one in coded["properties"].items()
    }


def _dict(value: Any) -> dict[str, Any]:
    assert isinstance(value, dict)
    return value


@BOTH
def test_no_other_frame_is_documented_and_each_is_in_its_direction(described: Described) -> None:
    document = described.document
    messages = {kind.__name__ for kind in described.asked + described.told}
    assert set(document["components"]["messages"]) == messages
    assert set(document["channels"][described.channel]["messages"]) == messages
    for operation, kinds in (("ask", described.asked), ("tell", described.told)):
        named = {one["$ref"].rpartition("/")[2] for one in document["operations"][operation]["messages"]}
        assert named == {kind.__name__ for kind in kinds}


@BOTH
def test_every_reference_leads_somewhere(described: Described) -> None:
    for path in re.findall(r'\$ref: "#/([^"]+)"', text(described.path)):
        found: Any = described.document
        for part in path.split("/"):
            found = found[part]


@BOTH
def test_the_protocol_s_tables_have_the_frames_and_their_fields(described: Described) -> None:
    section = next(b for heading, b in sections(text("PROTOCOL.md")).items() if heading.startswith(described.section))
    asked, told, *_ = tables(section[section.index(described.heading) :])
    for rows, kinds in ((asked, described.asked), (told, described.told)):
        in_protocol = [frame for row in rows for frame in re.findall(r"`(\{[^`]*\})`", next(iter(row.values())))]
        in_code = {kind.__struct_config__.tag: schema(kind)["properties"] for kind in kinds}
        fields = {}
        for frame in in_protocol:
            kind = re.findall(r'"type": "(\w+)"', frame)[0]
            rest = re.sub(r': "[^"]*"( \\?\| "[^"]*")*', "", frame)  # without values
            fields[kind] = set(re.findall(r'"(\w+)"\??(?=[,:}])', rest)) - {"type"}
        assert {kind: names | {"type"} for kind, names in fields.items()} == {
            kind: set(properties) for kind, properties in in_code.items()
        }


async def test_what_the_gateway_tells_publishers_is_as_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[dict[str, Any]] = []
    upstream = recording(monkeypatch)
    upstream.refuses = NOT_FOUND
    async with gateway(Settings(engine="memory", port=0, no_auth=True)) as url, Served(url) as served:
        async with line(served) as client:
            await client.send({"type": "token", "token": "any, where nobody is asked"})
            came.append(await client.next("token"))
            await client.send({"type": "ping"})
            came += [await client.next("pong"), await client.open()]
            await client.append("x")
            came.append(await client.next("appended"))
            await client.append("x", channel=7)
            came.append(await client.next("error"))
            await client.open(2, publisher="q", workflow="order-1")
            came.append(await client.next("warning"))
        async with served.http.ws_connect("/v1/publish") as opened:
            came.append(await opened.receive_json())
    check(PUBLISHING, came)


def check(described: Described, frames: list[dict[str, Any]]) -> None:
    """Every kind of frame has come, and each is as the document says, by another validator than the one that made them."""
    names = {kind.__struct_config__.tag: kind.__name__ for kind in described.told}
    assert {frame["type"] for frame in frames} == set(names)
    for frame in frames:
        referring = {
            "$ref": f"#/components/schemas/{names[frame['type']]}",
            "components": {"schemas": described.schemas},
        }
        jsonschema_rs.validate(referring, json.loads(json.dumps(frame)))


async def test_what_the_gateway_sends_is_as_documented() -> None:
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
    check(FEED, [*client.frames, await an_outcome()])


async def an_outcome() -> dict[str, Any]:
    """The answer to an input that was settled before, so that no Temporal is needed."""
    engine = MemoryEngine()
    state, _ = await engine.create_session(NewSession("s"))
    digest = Asked(id="k", kind="signal", name="say").digest("")
    data = msgspec.Raw(b'{"id":"k","result":{"a":1}}')
    settled = Settled(epoch=state.epoch, digest=digest, status="completed", data=data)
    intent = Intent(
        session="s",
        epoch=state.epoch,
        id="k",
        digest=digest,
        kind="signal",
        args=msgspec.Raw(b"[]"),
        run="r",
        run_id="r",
        workflow_id="s",
    )
    await Intents(engine).settle(intent, settled)
    settings = Settings(engine="memory", port=0, no_auth=True, temporal="127.0.0.1:1")
    async with gateway(settings, engine=engine) as url, Served(url) as served, feed(served) as client:
        await client.send("input", "s", input={"id": "k", "kind": "signal", "name": "say"})
        return await client.next("outcome")


async def until_end(client: Feed) -> None:
    while (await client.next())["type"] != "end":
        continue
