from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from examples.fake_openai import FakeOpenAI
from openai import AsyncOpenAI

from tests.unit.conftest import serve, served

__all__ = ["serve", "served"]


@pytest.fixture
def kept_in() -> str:
    return "sqlite"


@pytest.fixture
async def fake() -> AsyncIterator[FakeOpenAI]:
    """OpenAI's API; the test scripts what it says."""
    async with FakeOpenAI() as running:
        yield running


@pytest.fixture
async def openai(fake: FakeOpenAI) -> AsyncIterator[AsyncOpenAI]:
    """OpenAI's own client, talking to the fake."""
    async with AsyncOpenAI(base_url=fake.url, api_key="none", max_retries=0) as real:
        yield real


# LangChain and Pydantic AI keep HTTP clients of their own, and never close the connections in their pools. Of what is ours
# aiohttp says "Unclosed client session" or "connector", and that is an error as everywhere.
_POOLED = "ignore:unclosed (<socket|transport):ResourceWarning"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(_POOLED))


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What a test leaves behind is found here, not in a later test elsewhere."""
    yield
    gc.collect()
