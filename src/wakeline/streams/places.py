"""How those who read by update share the places to wait in a workflow, of which a server allows ten.

An update too many is not only refused: the server then also lets go of those that have come and are not in the workflow
yet, and of the workflow task that brings them. In a throng of refused ones nobody would get anywhere. So a reader that
sees in the history that all places are taken does not ask, and readers that have met a throng do not come back together.
"""

from __future__ import annotations

import random

from temporalio.service import RPCError

from wakeline.streams.rpc import waiting_limit

ALLOWED = 10
# How often a reader finds all places taken before it asks nevertheless, to learn whether the server allows more.
_PATIENT_TRIES = 6
# How often an update that was let go of is taken for one of a throng.
MOST_LET_GO = 6
# Seconds from the workflow task that makes room for an update until it is asked for, at least and, at first, at most.
# A task takes some milliseconds, and the history tells of it some later.
_SHORTEST, _LONGEST = 0.02, 0.8
_MOST_DOUBLINGS = 4


class Places:
    """The places of one run, as its readers through one client know them.

    Attributes:
        taken: How many updates wait in the workflow, as its history tells; 0 where that is not followed.
    """

    def __init__(self) -> None:
        self.taken = 0
        self._allowed = ALLOWED
        self._was_refused = False
        self._is_crowded = False

    def are_taken(self, tries: int) -> bool:
        """Whether there is no use in asking, for who has tried this often."""
        return self.taken >= self._allowed and (self._was_refused or tries < _PATIENT_TRIES)

    def refused(self, error: RPCError) -> None:
        """Learn from an update that was refused."""
        self._was_refused = True
        self._allowed = waiting_limit(error) or self._allowed

    def missed(self) -> None:
        """Learn that a reader found no place."""
        self._is_crowded = True

    def first_pause(self) -> float:
        """Seconds until an update is first asked for: after a throng, those who are further let the others go first."""
        if not self._is_crowded:
            return 0.0
        self._is_crowded = False
        return random.uniform(0.0, _LONGEST)

    def pause(self, throng: int) -> float:
        """The same for who found no place.

        Args:
            throng: How often in a row it was too late since.
        """
        return random.uniform(_SHORTEST, _LONGEST * 2 ** min(throng, _MOST_DOUBLINGS))
