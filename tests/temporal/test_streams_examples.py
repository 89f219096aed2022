"""Every example prints what it must."""

from __future__ import annotations

import pytest
from examples.__main__ import ALL
from examples.stage import Example, play
from temporalio.client import Client


@pytest.mark.parametrize("example", ALL, ids=[example.name for example in ALL])
async def test_example(client: Client, example: Example) -> None:
    await play(example, client)
