"""What a connection logs of its health."""

from __future__ import annotations

from typing import Any, cast

import pytest
from structlog.testing import capture_logs
from temporalio.service import RPCError, RPCStatusCode

from tests.clocks import Clock
from wakeline.gateway.reaching import Connection, Options, connection


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(connection, "time", clock)
    return clock


class Answers:
    """Stands for Temporal's service, which answers every check."""

    workflow_service: Any = None

    def __init__(self) -> None:
        self.workflow_service = self

    async def get_system_info(self, *_: Any, **__: Any) -> None:
        return None

    describe_namespace = get_system_info


async def checked(found: Connection) -> None:
    found._client = found._client or cast(Any, Answers())
    await found._check()


@pytest.mark.parametrize(
    ("status", "event"),
    [
        (RPCStatusCode.RESOURCE_EXHAUSTED, "Temporal has too many calls; the gateway makes fewer"),
        (
            RPCStatusCode.PERMISSION_DENIED,
            "Temporal refuses calls of the gateway; check its credentials and permissions",
        ),
    ],
)
async def test_a_temporal_that_answers_is_not_logged_as_unavailable(
    clock: Clock, status: RPCStatusCode, event: str
) -> None:
    found = Connection(Options(address="127.0.0.1:1"))
    with capture_logs() as logs:
        await checked(found)
        for _ in range(5):  # now and then for five minutes, and it is forgotten in between
            found.failed(RPCError("no", status, b""))
            clock.now += 60
            await checked(found)
    assert found.up()
    assert [log["event"] for log in logs] == ["Temporal answers", event, "calls of Temporal succeed again"]


async def test_a_trouble_that_lasts_is_logged_again_after_ten_minutes(clock: Clock) -> None:
    found = Connection(Options(address="127.0.0.1:1"))
    refused = "Temporal refuses calls of the gateway; check its credentials and permissions"
    with capture_logs() as logs:
        await checked(found)
        found.failed(RPCError("no", RPCStatusCode.PERMISSION_DENIED, b""))
        clock.now += 60
        await checked(found)
        for _ in range(60):  # for twenty minutes
            found.failed(RPCError("no", RPCStatusCode.PERMISSION_DENIED, b""))
            clock.now += 20
            await checked(found)
    assert [log["event"] for log in logs] == ["Temporal answers", refused, "calls of Temporal succeed again", refused]


async def test_a_trouble_that_is_left_after_an_outage_is_logged(clock: Clock) -> None:
    found = Connection(Options(address="127.0.0.1:1"))
    refused = "Temporal refuses calls of the gateway; check its credentials and permissions"
    away = "Temporal is unavailable; the gateway serves its log and retries"
    with capture_logs() as logs:
        await checked(found)
        for _ in range(2):
            found.failed(RPCError("no", RPCStatusCode.PERMISSION_DENIED, b""))
            found.failed(RPCError("gone", RPCStatusCode.UNAVAILABLE, b""))
            await checked(found)
    assert [log["event"] for log in logs] == ["Temporal answers", refused, away, refused, away, refused]


async def test_every_outage_is_logged(clock: Clock) -> None:
    found = Connection(Options(address="127.0.0.1:1"))
    away = "Temporal is unavailable; the gateway serves its log and retries"
    with capture_logs() as logs:
        for _ in range(2):
            await checked(found)
            found.failed(RPCError("gone", RPCStatusCode.UNAVAILABLE, b""))
            assert not found.up()
    assert [log["event"] for log in logs] == ["Temporal answers", away] * 2


async def test_a_stream_that_cannot_be_decoded_is_no_outage() -> None:
    found = Connection(Options(address="127.0.0.1:1"))
    with capture_logs() as logs:
        await checked(found)
        found.remember("encoded: the stream of workflow 'w' is encoded")
        found.remember("invalid rule: WorkflowType = 'x': no such attribute")
    assert [log["event"] for log in logs[1:]] == [
        "a workflow's stream cannot be decoded",
        "Temporal refuses the query of a rule that finds workflows",
    ]


async def test_a_refusal_of_a_call_that_is_not_needed_is_no_trouble() -> None:
    found = Connection(Options(address="127.0.0.1:1"))
    await checked(found)
    refused = RPCError("no", RPCStatusCode.PERMISSION_DENIED, b"")
    found._called("DescribeWorkerDeploymentVersion", "PERMISSION_DENIED", refused)
    assert found.health == "ok"
    found._called("DescribeWorkflowExecution", "PERMISSION_DENIED", refused)
    assert found.health == "refused: no"
