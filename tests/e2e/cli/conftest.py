"""Commands that are forked, and gateways in this process for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.commands import forking
from tests.unit.conftest import serve as serve
from tests.unit.conftest import served as served


@pytest.fixture(scope="session", autouse=True)
def _forking() -> Iterator[None]:
    with forking():
        yield
