"""Outcomes of operations that an engine carries out together, or in parts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

from wakeline.background import begin
from wakeline.errors import WakelineError
from wakeline.gateway.log.values import Append, Appended, Outcome

K = TypeVar("K", bound=Hashable)


def answer(future: asyncio.Future[Any], outcome: Any) -> None:
    """Give a caller the result of its operation, or the error of the refusal."""
    if future.done():
        return  # the caller was cancelled; its change stays
    if isinstance(outcome, WakelineError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def each_decided(decide: Callable[[Append], Appended], appends: Sequence[Append]) -> list[Outcome]:
    """Decide on batches in their order, each by itself; see `Log.append_each`."""
    outcomes: list[Outcome] = []
    for append in appends:
        try:
            outcomes.append(decide(append))
        except WakelineError as refusal:
            outcomes.append(refusal)
    return outcomes


async def each_appended(append: Callable[[Append], Awaitable[Appended]], appends: Sequence[Append]) -> list[Outcome]:
    """Append batches one after the other, each by itself; see `Log.append_each`."""
    outcomes: list[Outcome] = []
    for one in appends:
        try:
            outcomes.append(await append(one))
        except WakelineError as refusal:
            outcomes.append(refusal)
    return outcomes


def in_parts(
    appends: Sequence[Append],
    part_of: Callable[[str], K],
    submit: Callable[[K, list[Append]], asyncio.Future[list[Outcome]]],
    tasks: set[asyncio.Task[list[Outcome]]],
) -> asyncio.Future[list[Outcome]]:
    """Append batches in parts, each of which an engine appends by itself.

    Args:
        appends: The batches.
        part_of: Returns the part that the batches of a session belong to.
        submit: Appends the batches of a part.
        tasks: Has the task that joins the outcomes until it ends.
    """
    places: dict[K, list[int]] = {}
    for place, append in enumerate(appends):
        places.setdefault(part_of(append.session), []).append(place)
    parts = {tuple(some): submit(part, [appends[place] for place in some]) for part, some in places.items()}
    return next(iter(parts.values())) if len(parts) == 1 else begin(_joined(len(appends), parts), tasks)


async def _joined(count: int, parts: Mapping[tuple[int, ...], asyncio.Future[list[Outcome]]]) -> list[Outcome]:
    """Return the outcomes of all parts in the order of the batches; a part fails for each batch."""
    outcomes: dict[int, Outcome] = {}
    for places, part in parts.items():
        try:
            outcomes |= zip(places, await part, strict=True)
        except WakelineError as error:
            outcomes |= dict.fromkeys(places, error)
    return [outcomes[place] for place in range(count)]
