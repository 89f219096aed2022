"""The order of a session's runs: which of them come before another one's first event."""

from __future__ import annotations

from collections.abc import Sequence

from wakeline.gateway.sessions import Run


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
