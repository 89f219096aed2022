"""Commands and gateways that are forked, and gateways in this process for them."""

from __future__ import annotations

import pytest

from tests.unit.conftest import serve as serve
from tests.unit.conftest import served as served


@pytest.fixture
def kept_in() -> str:
    return "sqlite"


@pytest.fixture(scope="session", autouse=True)
def _forking(forks: None) -> None:
    return
