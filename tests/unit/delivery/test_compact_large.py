"""A message that is larger than clients take in one piece: the compact form has it in several events."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.messages import after
from tests.support import Served
from wakeline.client import SessionClient
from wakeline.compact import Fold
from wakeline.events import Event, MessagePiece, compose
from wakeline.gateway.app import gateway
from wakeline.gateway.delivery.compact import blocks
from wakeline.gateway.delivery.compact.snapshot import Snapshot
from wakeline.gateway.delivery.pages import Pages
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.settings import Settings

MIB = 1 << 20
TOKENS = [f"{number:06} \u20ac{'x' * 4086}" for number in range(1536)]
WHOLE = "".join(TOKENS)
WHO = {"publisher": "p", "run": "r", "activity": "a"}


def token(text: str, **more: Any) -> dict[str, Any]:
    return {"topic": "answer", "data": text, "message": {"id": "m", "op": "text", **more}}


async def publish(served: Served) -> None:
    """A message of 6 MiB, and between its tokens what belongs to no message."""
    assert len(WHOLE.encode()) >= 6 * MIB
    for start in range(0, len(TOKENS), 192):
        tokens = [
            token(text, complete=start + n == len(TOKENS) - 1) for n, text in enumerate(TOKENS[start : start + 192])
        ]
        tool = {"topic": "tool", "data": start}
        await served.publish("s", *tokens[:100], tool, *tokens[100:], sequence=str(start // 192 * 193), **WHO)


def check(events: list[dict[str, Any]]) -> None:
    """The whole text letter for letter, no event larger than 1 MiB, each at a place of its own."""
    value: Any = None
    pieces = [event for event in events if "message" in event]
    for event in pieces:
        value = after(value, event["message"]["op"], event["data"])
    assert value == WHOLE
    assert [event["message"]["op"] for event in pieces[:2]] == ["set", "text"]
    assert pieces[-1]["message"]["complete"]
    assert all(len(json.dumps(event)) < MIB for event in events)
    offsets = [event["offset"] for event in events]
    assert offsets == sorted(set(offsets))
    stands_for = [event["compact"] for event in pieces]
    assert sum(one["events"] for one in stands_for) == len(TOKENS)
    assert all(one["last"] < later["first"] for one, later in pairwise(stands_for))
    assert [event["data"] for event in events if event["topic"] == "tool"] == list(range(0, len(TOKENS), 192))


async def by_socket(served: Served) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    async with served.http.ws_connect("/v1/feed", max_msg_size=MIB) as socket:
        await socket.send_json({"type": "subscribe", "session": "s", "view": "compact"})
        while not events or events[-1]["topic"] != "$compact":
            told = await socket.receive_json(timeout=60)
            events += told["events"] if told["type"] == "events" else []
    return events[:-1]


async def by_stream(served: Served) -> list[dict[str, Any]]:
    stream = await served.stream("s", "view=compact")
    events: list[dict[str, Any]] = []
    while not events or events[-1]["topic"] != "$compact":
        events.append(await stream.next())
    stream.close()
    return events[:-1]


async def by_page(served: Served) -> list[dict[str, Any]]:
    status, answer = await served.call("GET", "/v1/sessions/s/events?view=compact")
    assert status == 200
    events: list[dict[str, Any]] = answer["events"]
    return events


async def test_a_client_that_takes_1_mib_has_a_message_of_6_mib(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path), port=0, durability="process", no_auth=True)
    async with gateway(settings) as url, Served(url) as served:
        await publish(served)
        for events in (await by_socket(served), await by_stream(served), await by_page(served)):
            check(events)
    async with gateway(settings) as url, Served(url) as served:  # from what was stored
        check(await by_socket(served))
        async with SessionClient(served.url) as client, client.session("s").view() as view, asyncio.timeout(60):
            while not view.messages or view.messages["answer", "m"].value != WHOLE:
                await anext(view)
            assert view.messages["answer", "m"].complete
            await served.publish("s", token("anew"), sequence="0", attempt="2", **WHO)
            while "anew" not in [message.value for message in view.messages.values()]:
                await anext(view)
        assert [event["data"] for event in await by_page(served)] == ["anew"]


async def test_a_message_is_made_of_its_events_whoever_made_the_page_before() -> None:
    """A form that was made again may have other events at the same offset: a reader gets those of one."""
    log = [compose("t", b'"%d "' % n, time="x", message=MessagePiece("m", "text")) for n in range(12)]
    forms: list[Snapshot] = []
    for bound in (9, 30):
        fold = Fold(bound=bound)
        for offset, new in enumerate(log):
            fold.add(Event(offset, new.topic, new.body))
        forms.append(Snapshot(12, fold.events(), (), "x"))
    pages = Pages(MemoryEngine(), "s", "e", "x")

    def joined(events: Any) -> bytes:
        return b"\n".join(event.json() for event in events)

    for form in (*forms, *forms):
        page = await pages.compact(form, 0, topics=None, encode=joined, form=joined)
        assert page.chunk == joined(form._events)


def test_blocks_of_an_earlier_version_are_read_and_extended() -> None:
    """It put a message of one writer in one piece, however large."""
    fold = Fold(bound=1 << 40)
    for offset in range(20):
        new = compose("t", json.dumps("x" * 50_000).encode(), time="x", message=MessagePiece("m", "text"))
        fold.add(Event(offset, new.topic, new.body))
    stored = blocks.decode(blocks.encode(fold))
    assert stored.events() == fold.events()
    stored.add(Event(20, new.topic, new.body))
    found = [json.loads(event.json()) for event in stored.events()]
    assert [(event["offset"], event["message"]["op"], len(event["data"])) for event in found] == [
        (19, "set", 1_000_000),
        (20, "text", 50_000),
    ]


@pytest.mark.parametrize("op", ["list", "json-merge"])
async def test_lists_and_objects_are_bounded_too(served: Served, op: str) -> None:
    many = 20
    for number in range(many):
        data: Any = {"text": "x" * 100_000, "number": number}
        piece = {"topic": "t", "data": data if op == "list" else {f"k{number}": data}, "message": {"id": "m", "op": op}}
        await served.publish("s", piece)
    value: Any = None
    events = [event for event in await by_socket(served) if "message" in event]
    assert 3 < len(events) < 8
    for event in events:
        value = after(value, event["message"]["op"], event["data"])
    held = value if op == "list" else [value[f"k{number}"] for number in range(many)]
    assert [one["number"] for one in held] == list(range(many))
