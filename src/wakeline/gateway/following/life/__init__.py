"""The rules of runs, without clients, clocks and tasks.

`reducer.py` has the life of a run: from observations to phases and effects. `reports.py` has the events for a change of its
state, and `order.py` the runs of a session.
"""

from __future__ import annotations

from wakeline.gateway.following.life.phases import RULES
from wakeline.gateway.following.life.reducer import begin, reduce

__all__ = ["RULES", "begin", "reduce"]
