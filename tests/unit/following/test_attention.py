"""How closely a run is watched: a change ends what was done for the attention before, at whatever moment it comes."""

from __future__ import annotations

import asyncio

import pytest

from wakeline.gateway.following.watching.attention import Attention


@pytest.mark.parametrize("steps", range(1, 6))
async def test_a_change_ends_what_is_done_at_whatever_moment_it_comes(steps: int) -> None:
    async def work() -> int:
        await asyncio.sleep(3600)
        return 7

    attention = Attention()
    doing = asyncio.create_task(attention.while_so(work()))
    for _ in range(steps):
        await asyncio.sleep(0)
    attention.set(closely=True)
    assert await asyncio.wait_for(doing, 60) is None


async def test_what_is_done_before_a_change_is_given() -> None:
    async def work() -> int:
        return 7

    assert await Attention().while_so(work()) == 7
