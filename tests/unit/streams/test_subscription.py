"""Reading to the end of a run that is closed, against a host that answers as told."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio.service import RPCError, RPCStatusCode

from wakeline.retry import Backoff
from wakeline.streams import subscription as subscribing
from wakeline.streams.runs import Answer
from wakeline.streams.subscription import Subscription
from wakeline.streams.wire import PollResult


async def test_a_reader_that_takes_its_time_is_told_all_of_a_closed_run(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Answer | RPCError] = [
        Answer(PollResult(next_offset=1, more_ready=True), 1, 0.0),
        RPCError("away for a moment", RPCStatusCode.UNAVAILABLE, b""),
        Answer(PollResult(next_offset=2), 1, 0.0),
    ]
    now = 0.0

    class Closed:
        async def read(self, *_: Any, **__: Any) -> Answer:
            answer = answers.pop(0)
            if isinstance(answer, RPCError):
                raise answer
            return answer

    monkeypatch.setattr(subscribing, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(subscribing, "backoff", lambda: Backoff(0.0))
    subscription = Subscription(
        cast(Any, None),
        "w",
        run_id="r",
        follow=True,
        topics=(),
        offset=0,
        poll_cooldown=timedelta(0),
        retry_timeout=None,
        on_end=None,
    )
    told: list[int] = []
    async for result in subscription._drain(cast(Any, Closed())):
        told.append(result.next_offset)
        now += 3600  # whoever reads writes it down somewhere
    assert told == [1, 2]
    assert subscription._drained
