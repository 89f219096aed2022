"""Splits the address of a store's servers; errors repeat no part: it may be a password."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from wakeline.errors import EngineRefusedError


def split(address: str, example: str) -> SplitResult:
    """Return the parts of an address.

    Args:
        address: `SCHEME://USER:PASSWORD@HOST:PORT,HOST:PORT/NAME?OPTIONS`.
        example: An address for the error's message.

    Raises:
        EngineRefusedError: It cannot be split, or a character that ends a part is within a part.
    """
    try:
        parts = urlsplit(address)
    except ValueError:
        raise EngineRefusedError(f"expected an address such as {example}, its parts cannot be read") from None
    if parts.netloc.count("@") > 1 or "@" in parts.path + parts.query or parts.fragment:
        raise EngineRefusedError(
            f"expected an address such as {example}, a part of it has a character that ends the part",
            hint="Write these characters of a user or password in another way: @ as %40, / as %2F, ? as %3F, # as %23.",
        )
    return parts
