"""What type checkers make of the client. Never run: `test_typing.py` has mypy and pyright read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_type

from wakeline import Retention, SessionClient, SessionEvent, SyncSessionClient
from wakeline.client import (
    Device,
    EventDataError,
    EventStream,
    LiveMessage,
    LiveView,
    MessageChanged,
    Page,
    Published,
    RefusedError,
    Run,
    SessionState,
    Superseded,
    SyncEventStream,
)
from wakeline.errors import SequenceGapError, WakelineError


@dataclass
class Status:
    state: str


@dataclass
class Progress:
    percent: int


async def fresh() -> str:
    return "token"


async def read() -> None:
    async with SessionClient("http://127.0.0.1:7777", fresh) as client:
        session = client.session("order-1")
        async for event in session.events(from_="tail:10", topics=["status"], until="settled", device="phone"):
            assert_type(event, SessionEvent[Any])
        async with session.events(type=Status, on_lost=lost) as events:
            assert_type(events, EventStream[Status | dict[str, Any]])
            async for typed in events:
                if isinstance(typed.data, Status):
                    assert_type(typed.data.state, str)
                else:
                    assert_type(typed.data, dict[str, Any])
        async for either in session.events(type=Status | Progress):
            assert_type(either, SessionEvent[Any])
        assert_type(await session.page(before="now", type=Status), Page[Status | dict[str, Any]])
        assert_type(await session.page(), Page[Any])
        assert_type(await session.page(view="compact"), Page[Any])
        async with session.view(topics="status", type=Status, until="settled") as view:
            assert_type(view, LiveView[Status | dict[str, Any]])
            async for change in view:
                if isinstance(change, MessageChanged):
                    assert_type(change.message, LiveMessage)
                elif isinstance(change, Superseded):
                    assert_type(change.offsets, list[tuple[int, int]])
                else:
                    assert_type(change.event, SessionEvent[Status | dict[str, Any]])
        session.events(until="closed")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
        session.events(since="now")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


def lost(error: WakelineError) -> None:
    assert_type(error.hint, str)


async def steer(client: SessionClient, event: SessionEvent[Status]) -> None:
    session = client.session("order-1")
    assert_type(await session.publish("status", Status("packed"), publisher="p", sequence=0), Published)
    assert_type(await session.publish_many([("a", 1), {"topic": "b", "data": 2}]), Published)
    assert_type(await session.create(retention=Retention(events=1000)), SessionState)
    assert_type(await session.acknowledge(event, device="phone", everywhere=True), Device)
    assert_type(await session.devices(), list[Device])
    assert_type(await client.register("order-1"), Run)
    async for state in client.sessions():
        assert_type(state, SessionState)
    await session.publish("status", 1, publisher=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def without_asyncio() -> None:
    with SyncSessionClient(token=lambda: "token") as client:
        session = client.session("order-1")
        assert_type(session.events(type=Status), SyncEventStream[Status | dict[str, Any]])
        for event in session.events():
            assert_type(event, SessionEvent[Any])
        assert_type(session.page(limit=10), Page[Any])
        assert_type(next(client.sessions()), SessionState)


def errors(error: SequenceGapError | RefusedError | EventDataError) -> None:
    match error:
        case SequenceGapError():
            assert_type(error.expected, int)
        case EventDataError():
            assert_type(error.event, SessionEvent[Any])
        case RefusedError():
            assert_type((error.code, error.status), tuple[str, int])
