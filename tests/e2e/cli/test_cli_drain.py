"""`wakeline drain`: what publishers left in a spool goes to the gateway."""

from __future__ import annotations

from pathlib import Path

from tests.commands import wakeline
from tests.support import Served
from tests.unit.publisher.scripted import ScriptedGateway, spooling
from wakeline.publisher import SessionPublisher
from wakeline.publisher.spool import Spool


async def left(file: Path, session: str, events: int, **who: object) -> None:
    async with spooling(ScriptedGateway(), file, session, **who) as publisher:
        for n in range(events):
            await publisher.topic("t").publish(n)


async def test_it_sends_everything_once_and_says_how_many(served: Served, tmp_path: Path) -> None:
    file = tmp_path / "spool.db"
    await left(file, "a", 700)
    await left(file, "b", 3)
    code, out, err = await wakeline("drain", str(file), "--url", served.url)
    assert (code, out, err) == (0, "sent 703 · refused 0\n", "")
    assert (await wakeline("drain", str(file), "--url", served.url))[:2] == (0, "sent 0 · refused 0\n")
    for session, events in (("a", 700), ("b", 3)):
        _, page = await served.call("GET", f"/v1/sessions/{session}/events?limit=10000")
        assert [event["data"] for event in page["events"]] == list(range(events))


async def test_it_tells_what_the_gateway_refused(served: Served, tmp_path: Path) -> None:
    file = tmp_path / "spool.db"
    await left(file, "s", 2, publisher="p", attempt=1)
    async with SessionPublisher(served.url, session="s", publisher="p", attempt=2):
        pass
    code, out, err = await wakeline("drain", str(file), "--url", served.url)
    assert (code, out) == (1, "sent 0 · refused 2\n")
    assert err.startswith("attempt_fenced: 2 spooled events of session 's' were refused and put aside")
    assert (Spool.at(file).waiting(), Spool.at(file).refused()) == (0, 2)


async def test_it_says_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "spool.db"
    code, _, err = await wakeline("drain", str(file))
    assert (code, err.split(":")[0]) == (2, "spool_failed")
    await left(file, "s", 1)
    code, _, err = await wakeline("drain", str(file), "--url", ScriptedGateway().url)
    assert (code, err.split(":")[0]) == (2, "unavailable")
    assert Spool.at(file).waiting() == 1
