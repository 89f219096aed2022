"""Free ports for servers that start soon."""

from __future__ import annotations

from wakeline.cli.processes import free_port


def test_a_port_that_was_returned_a_moment_ago_is_not_returned_again() -> None:
    assert len({free_port() for _ in range(1_000)}) == 1_000
