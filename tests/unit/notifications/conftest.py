from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.receivers import Receiver, receiver


@pytest.fixture
async def hook() -> AsyncIterator[Receiver]:
    """A receiver of webhooks."""
    async with receiver() as found:
        yield found
