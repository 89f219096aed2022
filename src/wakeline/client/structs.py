"""The results of the client's calls; PROTOCOL.md defines each field."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

import msgspec

T = TypeVar("T")


class SessionEvent(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One event of a session.

    Attributes:
        offset: Its position in the session.
        topic: The label it was published under; labels that begin with `$` are Wakeline's own.
        data: The published value; None for a `payload` that was not decoded.
        time: The time at which the gateway accepted it.
        cursor: The position to resume after it.
        raw: Its JSON object, unchanged; every device receives the same bytes.
        payload: The Temporal payload in place of `data`, unchanged: `{"metadata": {…}, "data": "<base64>"}`.
        run: The workflow run whose output it is.
        activity: The id of the activity that published it.
        attempt: The attempt of that activity.
        key: The name of the state that it updates.
        message: The growing message that it belongs to: `{"id", "op", "complete"?}`.
        compact: In a compact form: the events that it replaces.
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


class InputOutcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of an input.

    Attributes:
        id: Its key.
        status: `completed`; `rejected` if the run did not bring it to a result; `accepted` if there is no outcome yet.
        result: The value that an update returned.
        failure: The reason of its rejection: `{"message", "type"?, …}`.
        result_payload: The same as a Temporal payload, if it is not JSON.
        result_bytes: The size of a result that was too large to report.
    """

    id: str
    status: Literal["completed", "rejected", "accepted"]
    result: Any = None
    failure: dict[str, Any] | None = None
    result_payload: dict[str, Any] | None = None
    result_bytes: int | None = None


class RequestOutcome(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How a request for input was closed.

    Attributes:
        request: The request's id.
        status: `resolved` by an answer, `cancelled`, or `expired`.
        payload: The answer.
        by: The user who closed it; None if nobody did, or no token is required.
        device: The device that the answer came from.
        answers: The people who gave the answer, each as `{"by", "device"?}`, if the request needed several.
    """

    request: str
    status: Literal["resolved", "cancelled", "expired"]
    payload: Any = None
    by: str | None = None
    device: str | None = None
    answers: list[dict[str, str]] | None = None


class InputRequest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A request for input.

    Attributes:
        id: Its key.
        reason: Why it asks, such as `approval`.
        kind: `tool` if one device at a time claims it and answers with the value of a tool.
        status: `open`, or the status of its outcome.
        message: The question, for people.
        choices: The possible answers.
        response_schema: The JSON Schema of an answer.
        expires_at: The time from which no answer is accepted.
        audience: The users, and roles as `role:NAME`, who may answer; None for all.
        digest: What an answer has to repeat.
        tool_call_id: The tool call that it belongs to.
        metadata: Further data.
        needs: The number of people who have to give the same answer.
        answers: The answers so far, each as `{"request", "payload", "by"?, "device"?}`, if it needs several.
        claim: The device that runs the tool: `{"request", "device", "until", "by"?}`.
        outcome: How it was closed; None while it is open.
        run_closed: Whether the run that asked has ended, so that nothing may come of an answer. Only of an open request, and of
            the answer that closed it.
    """

    id: str
    reason: str
    status: Literal["open", "resolved", "cancelled", "expired"]
    kind: Literal["question", "tool"] = "question"
    message: str | None = None
    choices: list[str] | None = None
    response_schema: dict[str, Any] | None = None
    expires_at: datetime | None = None
    audience: list[str] | None = None
    digest: str | None = None
    tool_call_id: str | None = None
    metadata: dict[str, Any] | None = None
    needs: int = 1
    answers: list[dict[str, Any]] = []
    claim: dict[str, str] | None = None
    outcome: RequestOutcome | None = None
    run_closed: bool = False


class Published(msgspec.Struct, frozen=True):
    """The place of a durable batch in the session.

    Attributes:
        first_offset: The offset of its first event.
        next_offset: The offset after its last one.
        epoch: The session's epoch.
        duplicate: Whether every event of it was in the session already.
    """

    first_offset: int
    next_offset: int
    epoch: str
    duplicate: bool


class Retention(msgspec.Struct, frozen=True, omit_defaults=True):
    """The limits of a session's log; None is the gateway's setting.

    Attributes:
        age: Seconds after which a settled or closed session is deleted.
        events: The number of events that are kept.
        bytes: The number of bytes of events that are kept.
        compact: Whether the compact form of the events over `events` and `bytes` is kept.
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
        drained: False if its end was reported before its last events could be read.
        followed: Whether this gateway is reading its stream now.
        waiting: The data of its `$run.waiting` event; None if it is not waiting.
        activities: Its retried, paused or stalled activities: the data of the event of each, and a `state`.
        session: The session of its output; set by `register`.
        kind: `workflow`, or `activity` for an activity that no workflow scheduled; `workflow_id` is then its id.
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
    kind: str = "workflow"


class SessionState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a session.

    Attributes:
        session: Its name.
        epoch: Its epoch, another one after it was deleted and created again.
        first_offset: The offset of the oldest event that is kept.
        next_offset: The offset of the next event.
        cursor: The end of the session as a cursor.
        created: The time of its creation.
        closed: Whether nothing can be appended any more.
        settled: Whether it has had a run and none is open.
        retention: Its limits.
        devices: The number of devices that are live on this gateway.
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
    """The positions of one device in a session.

    Attributes:
        device: Its id.
        user: Its user: the `sub` of the token.
        delivered: The cursor up to which events were written to its connection.
        seen: The cursor up to which it has acknowledged events.
        lag: The number of events that it has not acknowledged.
        connected: Whether it is connected now.
        transports: Those of its connections to the gateway that answered: `sse`, `websocket`, `long-poll`.
        last_active: The time of its last activity.
    """

    device: str
    user: str
    delivered: str | None = None
    seen: str | None = None
    lag: int = 0
    connected: bool = False
    transports: list[str] = []
    last_active: datetime | None = None


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Events of a session, read at once.

    Attributes:
        events: The events, in the log's order.
        cursor: The start of the next page; for a page read backwards, its end.
        previous: For a page read backwards: the argument `before` of the page before it, None if there is none.
        up_to_date: Whether there was no event after this page.
        settled: Whether no run of the session is open.
        closed: Whether the session is closed.
    """

    events: list[SessionEvent[T]]
    cursor: str
    previous: str | None = None
    up_to_date: bool
    settled: bool
    closed: bool
