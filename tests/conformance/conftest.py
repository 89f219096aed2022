from __future__ import annotations

import pytest

from tests.conformance.node import install


@pytest.fixture(scope="session", autouse=True)
def packages() -> None:
    install()
