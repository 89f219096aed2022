"""The error if an integration's library is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Wrap the imports of an extra's libraries.

    Args:
        extra: The extra of the `wakeline` package that installs them.

    Raises:
        ModuleNotFoundError: One is not installed; the message says how to install it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"expected the package of {error.name!r} to be installed, got none: pip install '.[{extra}]' in a clone",
            name=error.name,
            path=error.path,
        ) from error
