"""While a run's last words are waited for: who is there to tell them."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from tests.unit.following.followed import World, run
from tests.unit.following.test_late import parts_of
from wakeline.gateway.following import draining
from wakeline.gateway.following.copying.copy import StreamCopy
from wakeline.gateway.following.copying.reader import (
    EncodedError,
    NeverBegunError,
    NoStreamError,
    NotNowError,
    Stretch,
    TooLargeError,
)
from wakeline.gateway.following.draining import Drainer


@pytest.mark.parametrize(
    ("answer", "is_there"),
    [
        (None, True),
        (NoStreamError(), True),
        (EncodedError("no key"), True),
        (TooLargeError("5 MB"), True),
        (NotNowError("nobody"), False),
        (NeverBegunError(), False),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_worker_is_there_if_it_was_a_worker_that_answered(
    answer: Exception | None, is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reader:
        def __init__(self, *_: Any) -> None:
            pass

        async def read(self, offset: int, *, closed: bool = False) -> Stretch:
            if answer is not None:
                raise answer
            return Stretch([], offset, more=False)

    monkeypatch.setattr(draining, "StreamReader", Reader)
    world = World(monkeypatch)
    copy = StreamCopy(run("a"), cast(Any, None), world.accept, world.runs)
    drainer = Drainer(parts_of(world, places=1), copy, lambda run_id: asyncio.sleep(0))
    assert await drainer._answers("next") == is_there
