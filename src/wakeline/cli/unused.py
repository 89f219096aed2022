"""Refuses the options and arguments that an action of a command does not use."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from wakeline.errors import RequestInvalidError


def check_unused(action: str, given: Mapping[str, object], used: Collection[str]) -> None:
    """Check that an action gets nothing that it would ignore.

    Args:
        action: The command and its action.
        given: The values of all options and arguments by name; None and False for those that were left out.
        used: The names of those that the action uses.

    Raises:
        RequestInvalidError: It got one.
    """
    for name, value in given.items():
        if name not in used and value is not None and value is not False:
            own = ", ".join(name for name in given if name in used)
            raise RequestInvalidError(
                f"{action} does not use {name}",
                hint=f"It uses {own}." if own else "It has no options.",
            )
