"""`view=compact`, as clients have it: over server-sent events, as a page, over a WebSocket."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp

from tests.support import Served, Stream, publish
from tests.unit.conftest import on_disk, on_disk_and_shared
from wakeline.compact import Fold
from wakeline.events import Event
from wakeline.gateway.app import gateway
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.settings import Settings

TWO_GATEWAYS = True


def delta(text: str, name: str = "m", **more: Any) -> dict[str, Any]:
    return {"topic": "answer", "data": text, "message": {"id": name, "op": "text", **more}}


SOME = (
    delta("Hel"),
    {"topic": "status", "data": "busy", "key": "now"},
    delta("lo"),
    {"topic": "tool", "data": {"name": "search"}},
    {"topic": "status", "data": "idle", "key": "now"},
    delta(" you", complete=True),
    delta("Other", "n"),
)


async def page(served: Served, query: str = "view=compact") -> dict[str, Any]:
    status, answer = await served.call("GET", f"/v1/sessions/s/events?{query}")
    assert status == 200, answer
    assert isinstance(answer, dict)
    return answer


async def frame(stream: Stream) -> dict[bytes, bytes]:
    """The next frame that is more than a comment."""
    while True:
        fields = dict(line.split(b": ", 1) for line in await stream.lines() if not line.startswith(b":"))
        if fields:
            return fields


def brief(events: list[dict[str, Any]]) -> list[tuple[int, str, Any]]:
    return [(event["offset"], event["topic"], event["data"]) for event in events]


COMPACT = [
    (3, "tool", {"name": "search"}),
    (4, "status", "idle"),
    (5, "answer", "Hello you"),
    (6, "answer", "Other"),
]


async def test_a_stream_begins_with_the_compact_form_and_goes_on_with_the_log(served: Served) -> None:
    await served.publish("s", *SOME)
    stream = await served.stream("s", "view=compact")
    first = (await frame(stream))[b"id"].decode()
    assert first.endswith("-0")
    events = [await stream.next() for _ in COMPACT]
    assert brief(events) == COMPACT
    assert stream.last_id == "", "the compact form moves no cursor"
    assert events[2]["message"] == {"id": "m", "op": "set", "complete": True}
    assert events[2]["compact"] == {"first": 0, "last": 5, "events": 3}
    assert events[1]["compact"] == {"first": 1, "last": 4, "events": 2}
    assert "compact" not in events[0]
    end = await stream.next()
    assert (end["offset"], end["topic"], end["data"]) == (6, "$compact", {"events": 4, "next_offset": 7})
    assert stream.last_id == first[:-1] + "7"
    await served.publish("s", delta("!", "n"))
    assert (await stream.next())["message"] == {"id": "n", "op": "text"}
    assert stream.last_id == first[:-1] + "8"
    stream.close()


@on_disk_and_shared
async def test_who_was_cut_within_it_gets_all_of_it_again_and_who_was_not_gets_the_log(served: Served) -> None:
    await served.publish("s", *SOME)
    whole = await served.stream("s", "view=compact")
    first = (await frame(whole))[b"id"].decode()
    whole.close()
    again = await served.stream("s", "view=compact", **{"Last-Event-ID": first})
    assert brief([await again.next() for _ in COMPACT]) == COMPACT
    await again.next()
    again.close()
    later = await served.stream("s", "view=compact", **{"Last-Event-ID": again.last_id})
    await served.publish("s", delta("!", "n"))
    assert (await later.next())["offset"] == 7
    later.close()


async def test_from_everywhere_else_it_is_the_log(served: Served) -> None:
    await served.publish("s", *SOME)
    raw = (await page(served, ""))["events"]
    assert (await page(served, "view=raw"))["events"] == raw
    assert (await page(served, "view=compact&from=tail:20"))["events"] == raw
    assert (await page(served, "view=compact&from=tail:2"))["events"] == raw[-2:]
    assert (await page(served, "view=compact&from=now"))["events"] == []


async def test_a_page_has_all_of_it_and_leads_on_to_the_log(served: Served) -> None:
    await served.publish("s", *SOME)
    answer = await page(served)
    assert brief(answer["events"]) == COMPACT
    assert answer["from"].endswith("-0")
    assert answer["cursor"].endswith("-7")
    assert answer["up_to_date"] is True
    waiting = asyncio.ensure_future(page(served, f"view=compact&wait=20&from={answer['cursor']}"))
    await served.publish("s", delta("!", "n"))
    assert [event["offset"] for event in (await waiting)["events"]] == [7]


async def test_an_empty_session_has_no_compact_form(served: Served) -> None:
    await served.call("PUT", "/v1/sessions/s", json={})
    assert (await page(served))["events"] == []
    await served.call("POST", "/v1/sessions/s/close")
    stream = await served.stream("s", "view=compact")
    assert [event["topic"] for event in await stream.rest()] == ["$session.closed", "$compact"]


async def test_what_does_not_go_with_it_is_refused(served: Served) -> None:
    await served.publish("s", *SOME)
    for query in ("view=short", "view=", "view=compact&limit=5", "view=compact&wait=1", "view=compact&before=now"):
        status, answer = await served.call("GET", f"/v1/sessions/s/events?{query}")
        assert (status, answer["error"]["code"]) == (400, "request_invalid"), query
    status, answer = await served.call("GET", "/v1/feed?session=s&view=compact")
    assert (status, answer["error"]["code"]) == (400, "request_invalid")


async def test_what_was_superseded_is_gone_and_what_is_superseded_later_is_told_to_every_filter(served: Served) -> None:
    await served.publish("s", {"topic": "status", "data": "old", "key": "now"}, publisher="q", sequence="0")
    who = {"publisher": "p", "run": "r", "activity": "a", "sequence": "0"}
    await served.publish("s", delta("wrong"), {"topic": "status", "data": "new", "key": "now"}, **who)
    stream = await served.stream("s", "view=compact&topics=status")
    status = await stream.next()
    assert status["data"] == "new"
    assert [part.get("event", {}).get("data") for part in status["compact"]["parts"]] == ["old", None]
    assert (await stream.next())["topic"] == "$compact"
    await served.publish("s", delta("right"), attempt="2", **who)
    told = await stream.next()
    assert (told["topic"], told["data"]["offsets"]) == ("$attempt.superseded", [[1, 2]])
    stream.close()
    assert [(e["offset"], e["data"]) for e in (await page(served))["events"]] == [(0, "old"), (4, "right")]


async def test_a_message_of_several_attempts_says_who_wrote_what(served: Served) -> None:
    who = {"publisher": "p", "run": "r", "activity": "a", "sequence": "0"}
    await served.publish("s", delta("one "), attempt="1", **who)
    await served.publish("s", delta("two"), delta("!"), attempt="2", supersede="false", **who)
    (event,) = (await page(served))["events"]
    assert event["data"] == "one two!"
    first, second = event["compact"]["parts"]
    assert first["ops"] == [["set", "one "]]
    assert (second["attempt"], second["events"], second["ops"]) == (2, 2, [["text", "two!"]])


async def test_a_feed_subscribes_to_it(served: Served) -> None:
    await served.publish("s", *SOME)
    async with served.http.ws_connect("/v1/feed") as socket:
        await socket.send_json({"type": "subscribe", "session": "s", "view": "compact"})
        events: list[dict[str, Any]] = []
        while len(events) < 5:
            told = await socket.receive_json(timeout=60)
            if told["type"] == "events":
                assert told["cursor"].endswith("-0" if told["events"][-1]["topic"] != "$compact" else "-7")
                events += told["events"]
        assert brief(events[:4]) == COMPACT
        await served.publish("s", delta("!", "n"))
        assert (await socket.receive_json(timeout=60))["events"][0]["offset"] == 7
        await socket.send_json({"type": "subscribe", "session": "t", "view": "short"})
        assert (await socket.receive(timeout=60)).type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.CLOSE)


async def test_it_is_the_same_after_a_restart(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path), port=0, durability="process", no_auth=True)
    async with gateway(settings) as url, Served(url) as first:
        told = await _many(first)
    async with gateway(settings) as url, Served(url) as second:
        assert (await page(second))["events"] == told
        stream = await second.stream("s", "view=compact")
        streamed = await stream.take(68)
        stream.close()
    assert streamed[:-1] == told
    assert streamed[-1]["data"] == {"events": 67, "next_offset": 6060}


async def _many(first: Served) -> list[dict[str, Any]]:
    """Publish many events; gives the compact form, which must have each of them."""
    for number in range(60):
        pieces = [delta(f"{number}.{n} ", f"m{number % 7}") for n in range(100)]
        await first.publish("s", *pieces, {"topic": "tool", "data": number})
    told = (await page(first))["events"]
    assert len(told) == 67
    assert sum(event.get("compact", {"events": 1})["events"] for event in told) == 6060
    return list(told)


@on_disk
async def test_what_retention_has_taken_is_told_and_is_in_it_no_more(served: Served) -> None:
    await served.call("PUT", "/v1/sessions/s", json={"retention": {"events": 3}})
    await served.publish("s", *SOME)
    await first_offset(served, 4)
    gap, *rest = (await page(served))["events"]
    assert (gap["topic"], gap["data"]["missed"], gap["offset"]) == ("$gap", 4, 3)
    assert brief(rest) == [(4, "status", "idle"), (5, "answer", " you"), (6, "answer", "Other")]


async def test_a_gap_in_the_log_is_an_event_as_others_are() -> None:
    engine = MemoryEngine()
    async with gateway(Settings(port=0, no_auth=True), engine=engine) as url, Served(url) as served:
        missed = {"missed": 1, "first_available": 2, "source": "workflow"}
        await publish(engine, "s", "before")
        await publish(engine, "s", missed, publisher="p", topic="$gap")
        await publish(engine, "s", "after")
        assert [event["topic"] for event in (await page(served))["events"]] == ["t", "$gap", "t"]
        assert [event["topic"] for event in (await page(served, "view=compact&topics=t"))["events"]] == ["t", "t"]
        await publish(engine, "s", "again", publisher="p", attempt=2, supersedes=True)
        superseded = (await page(served, ""))["events"]
        assert "$attempt.superseded" in {event["topic"] for event in superseded}
        assert "$gap" not in {event["topic"] for event in (await page(served))["events"]}


async def first_offset(served: Served, least: int) -> None:
    """Wait until retention has taken what it is to take."""
    async with asyncio.timeout(60):
        while (await served.call("GET", "/v1/sessions/s"))[1]["first_offset"] < least:
            await asyncio.sleep(0.02)


async def test_the_compact_form_outlives_its_events_where_it_is_to(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path), port=0, durability="process", no_auth=True)
    async with gateway(settings) as url, Served(url) as served:
        kept = {"retention": {"events": 2, "compact": True}}
        assert (await served.call("PUT", "/v1/sessions/s", json=kept))[1]["retention"] == kept["retention"]
        await served.publish("s", *SOME)
        await first_offset(served, 5)
        assert brief((await page(served))["events"]) == COMPACT
        assert (await page(served, ""))["events"][0]["topic"] == "$gap"
        await served.publish("s", delta("!"), {"topic": "tool", "data": "last"})
        await first_offset(served, 7)
    async with gateway(settings) as url, Served(url) as served:
        told = brief((await page(served))["events"])
        assert told == [*COMPACT[:2], COMPACT[3], (7, "answer", "Hello you!"), (8, "tool", "last")]
        await served.call("PUT", "/v1/sessions/s", json={"retention": {"events": 2}})
        assert [event["topic"] for event in (await page(served))["events"]] == ["$gap", "answer", "tool"]


async def test_it_is_kept_from_when_it_is_to_be(served: Served) -> None:
    await served.publish("s", *SOME)
    await page(served)
    await served.call("PUT", "/v1/sessions/s", json={"retention": {"events": 1, "compact": True}})
    await first_offset(served, 6)
    assert brief((await page(served))["events"]) == COMPACT


async def test_a_session_that_was_made_anew_has_nothing_of_the_one_before(served: Served) -> None:
    await served.publish("s", *SOME)
    await page(served)
    await served.call("DELETE", "/v1/sessions/s")
    await served.publish("s", delta("new"))
    assert brief((await page(served))["events"]) == [(0, "answer", "new")]


@on_disk
async def test_large_ones_come_in_pages_in_order(served: Served) -> None:
    text = "x" * 3000
    for number in range(40):
        await served.publish(
            "s", *[delta(text, f"m{number}-{n}") for n in range(5)], {"topic": "tool", "data": text}, delta(text)
        )
    told = (await page(served))["events"]
    offsets = [event["offset"] for event in told]
    assert offsets == sorted(offsets)
    assert len(told) == 241
    stream = await served.stream("s", "view=compact&topics=answer")
    streamed = await stream.take(202)
    stream.close()
    assert streamed[:-1] == [event for event in told if event["topic"] == "answer"]


async def folded(stream: Stream, end: int) -> list[bytes]:
    """What a client holds when it has read up to an offset."""
    fold = Fold()
    while fold.next_offset < end:
        data = (await frame(stream)).get(b"data")
        if data is not None:
            event = json.loads(data)
            # Of a compact form, the last event has the session's end before its `$compact` says so.
            fold.add(Event(event["offset"], event["topic"], data.partition(b",")[2]))
    stream.close()
    return [event.json() for event in fold.events()]


@on_disk_and_shared
async def test_whoever_joins_while_it_is_published_holds_the_same_in_the_end(served: Served) -> None:
    rounds, each = 60, 8

    async def publishing() -> None:
        for number in range(rounds):
            attempt = 1 + number // 20
            who = {"publisher": f"p{number % 2}", "run": "r", "activity": f"a{number % 2}"}
            await served.publish(
                "s",
                *(delta(f"{number}.{n} ", f"m{n % 3}") for n in range(each - 2)),
                {"topic": "status", "data": number, "key": f"k{number % 3}"},
                {"topic": "tool", "data": number},
                attempt=str(attempt),
                sequence=str(number % 20 // 2 * each),
                **who,
            )

    await served.publish("s", {"topic": "tool", "data": "first"})
    last = 1 + rounds * each + 4  # with what tells of the two later attempts of both
    task = asyncio.create_task(publishing())
    joined: list[asyncio.Task[list[bytes]]] = []
    async with asyncio.timeout(60):
        while not task.done():
            joined.append(asyncio.create_task(folded(await served.stream("s", "view=compact"), last)))
            await asyncio.sleep(0.005)
        await task
        raw = await folded(await served.stream("s"), last)
        assert len(joined) > 5
        for one in joined:
            assert await one == raw
    assert len(raw) > 10
