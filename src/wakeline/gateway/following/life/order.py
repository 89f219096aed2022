"""The runs of a session: which one an execution belongs to, and which come before another."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from wakeline.gateway.sessions import Run


class Execution(NamedTuple):
    """A Temporal run that was found.

    Attributes:
        run_id: The Temporal run.
        chain: The run id of its chain's first execution.
        namespace: Its namespace; empty for the gateway's main one.
        ended: The runs of the chain whose end is in the log; the record may not have it yet.
        continued: Whether the log says that the chain continues as this run.
        latest: Whether it is the workflow's latest run; None if Temporal is to be asked for that where it matters.
    """

    run_id: str
    chain: str
    namespace: str
    ended: Collection[str] = ()
    continued: bool = False
    latest: bool | None = None


class Belongs(NamedTuple):
    """The run that an execution belongs to.

    Attributes:
        run: The run; None if it begins another one.
        asks: Whether Temporal is to be asked for the latest run first.
    """

    run: Run | None
    asks: bool = False


def of_chain(found: Execution, runs: Sequence[Run]) -> list[Run]:
    """Return the runs of an execution's chain: one, and another for each reset after an end."""
    return [run for run in runs if (run.first_run_id, run.namespace) == (found.chain, found.namespace)]


def belongs(found: Execution, runs: Sequence[Run]) -> Belongs:
    """Decide which of a session's runs an execution belongs to."""
    chained = of_chain(found, runs)
    exact = [run for run in chained if run.run_id == found.run_id]
    unfinished = [run for run in chained if run.open and run.run not in found.ended]
    if exact or unfinished:
        return Belongs((exact or unfinished)[0])
    if not chained:
        return Belongs(None)
    # All known runs of the chain have ended. If it did not continue into this run, and this is the latest run of the
    # workflow, a reset began it. The record of the end, with this run, may be written only now.
    if found.continued or found.latest is False:
        return Belongs(chained[-1])
    return Belongs(None, asks=found.latest is None)


def was_reset(found: Execution, runs: Sequence[Run]) -> bool:
    """Return whether an execution that begins another run does so by a reset of an ended chain.

    The record may no longer have the end of the chain, which then is in the log alone.
    """
    forgotten = found.run_id != found.chain and found.chain in found.ended and not found.continued
    return forgotten or any(run.first_run_id == found.chain for run in runs)


def before(run: Run, runs: Sequence[Run]) -> list[Run]:
    """Return the runs of a session that may still add events before a run's first one.

    These are the earlier runs of the same workflow, which have ended in Temporal even if that is not known yet, and the
    ended runs of any workflow whose rest is not read.

    Args:
        run: The run.
        runs: The session's runs.
    """
    own = (run.namespace, run.workflow_id, run.activity)
    of_workflow = [r for r in runs if (r.namespace, r.workflow_id, r.activity) == own and r.open]
    earlier = [r.run for r in of_workflow if (r.started_at, r.run) < (run.started_at, run.run)]
    return [r for r in runs if r.run != run.run and (r.owed or r.run in earlier)]
