"""Gateways that are forked: most tests in this folder start several."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _forking(forks: None) -> None:
    return
