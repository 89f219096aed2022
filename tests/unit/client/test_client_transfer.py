"""Export and import: whole, or not at all."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.support import Served
from tests.unit.transports.scripted import Answer, scripted
from wakeline.client import SessionClient, TransferError
from wakeline.errors import ImportInvalidError, SessionExistsError, SessionNotFoundError


@pytest.fixture
async def client(served: Served) -> AsyncIterator[SessionClient]:
    async with SessionClient(served.url) as client:
        yield client


async def test_a_session_survives_as_a_file(client: SessionClient, tmp_path: Path) -> None:
    session, file = client.session("s"), tmp_path / "s.ndjson"
    await session.publish_many([("t", {"n": n, "pad": "x" * 10_000}) for n in range(300)])
    before = [event.raw for event in (await session.page(limit=300)).events]
    epoch = (await session.state()).epoch
    assert await session.export(file) == 300
    assert len(file.read_bytes().splitlines()) == 302
    with pytest.raises(SessionExistsError):
        await session.import_(file)
    await session.delete()
    state = await session.import_(str(file))
    assert (state.next_offset, state.epoch != epoch) == (300, True)
    assert [event.raw for event in (await session.page(limit=300)).events] == before
    assert (await client.session("copy").import_(file)).session == "copy"
    assert [path.name for path in tmp_path.iterdir() if "ndjson" in path.name] == ["s.ndjson"]


async def test_a_full_disk_is_reported_as_such(client: SessionClient, tmp_path: Path) -> None:
    session, file = client.session("s"), tmp_path / "s.ndjson"
    await session.publish_many([("t", {"n": n, "pad": "x" * 10_000}) for n in range(300)])
    (tmp_path / "s.ndjson.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as failed:
        await session.export(file)
    assert failed.value.errno == errno.ENOSPC


async def test_both_ways_report_their_progress(client: SessionClient, tmp_path: Path) -> None:
    session, file = client.session("s"), tmp_path / "s.ndjson"
    await session.publish_many([("t", {"n": n, "pad": "x" * 10_000}) for n in range(300)])
    out: list[int] = []
    back: list[int] = []
    await session.export(file, on_progress=out.append)
    await client.session("copy").import_(file, on_progress=back.append)
    for lines in (out, back):
        assert len(lines) > 1
        assert lines == sorted(lines)
        assert lines[-1] == 302


async def test_what_is_not_a_whole_export_is_not_imported(client: SessionClient, tmp_path: Path) -> None:
    await client.session("s").publish("t")
    file = tmp_path / "s.ndjson"
    await client.session("s").export(file)
    file.write_bytes(b"\n".join(file.read_bytes().splitlines()[:-1]))
    with pytest.raises(ImportInvalidError):
        await client.session("copy").import_(file)
    with pytest.raises(SessionNotFoundError):
        await client.session("copy").state()


async def test_an_export_of_nothing_is_refused(client: SessionClient, tmp_path: Path) -> None:
    with pytest.raises(SessionNotFoundError):
        await client.session("nowhere").export(tmp_path / "s.ndjson")
    with pytest.raises(FileNotFoundError):
        await client.session("s").import_(tmp_path / "nowhere.ndjson")
    assert not (tmp_path / "s.ndjson").exists()


async def breaks_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b'{"wakeline_export":1}\n')
    assert request.transport is not None
    request.transport.abort()
    return response


@pytest.mark.parametrize(
    "answer",
    [breaks_off, web.Response(body=b'{"wakeline_export":1}\n{"offset":0}\n'), web.Response(body=b"")],
    ids=["breaks off", "without its end", "empty"],
)
async def test_an_export_that_is_cut_short_leaves_what_was_there(answer: Answer, tmp_path: Path) -> None:
    file = tmp_path / "s.ndjson"
    file.write_text("of yesterday")
    async with scripted(answer) as server, SessionClient(server.url) as client:
        with pytest.raises(TransferError, match="the export was cut short"):
            await client.session("s").export(file)
    assert file.read_text() == "of yesterday"
    assert list(tmp_path.iterdir()) == [file]


async def test_an_import_is_sent_again_whole_with_a_fresh_token(tmp_path: Path) -> None:
    file = tmp_path / "s.ndjson"
    file.write_bytes(b"x" * 1_000_000)
    expired = web.json_response({"error": {"code": "token_expired", "message": "m", "hint": "h"}}, status=401)
    state = {"session": "s", "epoch": "aaaaaaaaaa", "next_offset": 0, "cursor": "aaaaaaaaaa-0"}
    done = web.json_response({**state, "created": "2026-11-21T05:14:43Z", "closed": False, "settled": False})
    async with scripted(expired, done) as server, SessionClient(server.url, lambda: "token") as client:
        assert (await client.session("s").import_(file)).session == "s"
        assert [len(body) for body in server.bodies] == [1_000_000, 1_000_000]
