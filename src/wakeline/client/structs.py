"""What the client hands out; PROTOCOL.md has the meaning of each field."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")


class SessionEvent(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One event of a session.

    Attributes:
        offset: Its position in the session.
        topic: The label it was published under; those that begin with `$` are Wakeline's own.
        data: What was published. None for a `payload` that was not decoded.
        time: When the gateway accepted it.
        cursor: Where to resume after it.
        raw: Its JSON object as it came; every device gets the same bytes.
        payload: The Temporal payload in place of `data`, as it came: `{"metadata": {…}, "data": "<base64>"}`.
        run: Whose output it is.
        activity: The activity id that published it.
        attempt: The attempt of that activity.
        key: What it is the latest state of.
        message: What it is to a message that grows: `{"id", "op", "complete"?}`.
        compact: Of a compact form: what it stands for.
    """

    offset: int
    topic: str
    data: T
    time: datetime
    cursor: str
    raw: bytes
    payload: dict[str, Any] | None = None
    run: str | None = None
    activity: str | None = None
    attempt: int | None = None
    key: str | None = None
    message: dict[str, Any] | None = None
    compact: dict[str, Any] | None = None


class Published(msgspec.Struct, frozen=True):
    """Where a batch stands, now that it is durable.

    Attributes:
        first_offset: The offset of its first event.
        next_offset: The offset after its last one.
        epoch: The session's life.
        duplicate: Every event of it was there already.
    """

    first_offset: int
    next_offset: int
    epoch: str
    duplicate: bool


class Retention(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a session keeps; None is as the gateway's settings say.

    Attributes:
        age: Seconds after the session was settled or closed at which it is deleted.
        events: How many events are kept.
        bytes: How many bytes of events are kept.
        compact: Of what `events` and `bytes` take, the compact form is kept.
    """

    age: float | None = None
    events: int | None = None
    bytes: int | None = None
    compact: bool = False


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One workflow execution chain in a session.

    Attributes:
        workflow_id: Its Workflow Id.
        run: Its name in events: the run id of its first execution.
        run_id: The run id of its latest execution.
        status: `running`, or how it ended.
        namespace: Its namespace; None is the gateway's main one.
        drained: False if its end was told and what it said last could not be read yet.
        followed: Whether this gateway is reading its stream now.
        waiting: What it waits for, as `$run.waiting` tells it; None if it does something.
        activities: Its activities that are retried, paused or have stalled: the data of their event, and a `state`.
        session: Where its output goes; told by `register`.
    """

    workflow_id: str
    run: str
    run_id: str
    status: str
    namespace: str | None = None
    drained: bool = True
    followed: bool = False
    waiting: dict[str, Any] | None = None
    activities: list[dict[str, Any]] = []
    session: str | None = None


class SessionState(msgspec.Struct, frozen=True, kw_only=True):
    """How a session stands.

    Attributes:
        session: Its name.
        epoch: Its life.
        first_offset: The oldest event that is kept.
        next_offset: Where the next event will be.
        cursor: The end of the session as a cursor.
        created: When it began.
        closed: Whether nothing can be appended any more.
        settled: Whether it has had a run and none is open.
        retention: What it keeps.
        devices: How many devices are live on this gateway.
        runs: Its runs.
    """

    session: str
    epoch: str
    next_offset: int
    cursor: str
    created: datetime
    closed: bool
    settled: bool
    first_offset: int = 0
    retention: Retention | None = None
    devices: int = 0
    runs: list[Run] = []


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """Where one device stands in a session.

    Attributes:
        device: Its id.
        user: Whose it is: the `sub` of the token.
        delivered: A cursor: what was written to its connection.
        seen: A cursor: what it has acknowledged.
        lag: How many events it has not seen.
        connected: Whether it is there now.
        last_active: When it was last heard of.
    """

    device: str
    user: str
    delivered: str | None = None
    seen: str | None = None
    lag: int = 0
    connected: bool = False
    last_active: datetime | None = None


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Events of a session, read at once.

    Attributes:
        events: In the log's order.
        cursor: Where the next page begins; of a page read backwards, where it ends.
        previous: Of a page read backwards: what to pass as `before` for the page before it, None if there is none.
        up_to_date: There was nothing after this page.
        settled: No run of the session is open.
        closed: Nothing can be appended any more.
    """

    events: list[SessionEvent[T]]
    cursor: str
    previous: str | None = None
    up_to_date: bool
    settled: bool
    closed: bool
