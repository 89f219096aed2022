"""Joins the outcomes of batches that an engine appends in parts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from wakeline.errors import WakelineError
from wakeline.gateway.log.values import Outcome


async def joined(count: int, parts: Mapping[tuple[int, ...], asyncio.Future[list[Outcome]]]) -> list[Outcome]:
    """Return the outcomes of all parts in the order of the batches; a part fails for each batch.

    Args:
        count: The number of batches.
        parts: The outcomes of batches, by their places.
    """
    outcomes: dict[int, Outcome] = {}
    for places, part in parts.items():
        try:
            outcomes |= zip(places, await part, strict=True)
        except WakelineError as error:
            outcomes |= dict.fromkeys(places, error)
    return [outcomes[place] for place in range(count)]
