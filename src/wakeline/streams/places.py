"""The places in which updates wait in a workflow, of which a server allows ten.

If an update too many comes, the server not only refuses it: it also drops those that have come and are not in the
workflow yet, and the workflow task that brings them. In a throng of refused ones no reader would progress. So a reader
that sees in the history that all places are taken does not ask, and readers that met a throng do not return together.
"""

from __future__ import annotations

import random

from temporalio.service import RPCError

from wakeline.temporal.refusals import waiting_limit

ALLOWED = 10
# How often a reader finds all places taken before it asks nevertheless, to learn whether the server allows more.
_PATIENT_TRIES = 6
# How often a dropped update is taken for one of a throng.
MOST_LET_GO = 6
# Seconds from the workflow task that makes room for an update until it is asked for, at least and, at first, at most.
# A task takes some milliseconds, and the history shows it some milliseconds later.
_SHORTEST, _LONGEST = 0.02, 0.8
_MOST_DOUBLINGS = 4


class Places:
    """The places of one run, as its readers through one client know them.

    Attributes:
        taken: How many updates wait in the workflow by its history; 0 if that is not followed.
    """

    def __init__(self) -> None:
        self.taken = 0
        self._allowed = ALLOWED
        self._was_refused = False
        self._is_crowded = False

    def are_taken(self, tries: int) -> bool:
        """Return whether a reader that has tried this often need not ask."""
        return self.taken >= self._allowed and (self._was_refused or tries < _PATIENT_TRIES)

    def refused(self, error: RPCError) -> None:
        """Note an update that was refused."""
        self._was_refused = True
        self._allowed = waiting_limit(error) or self._allowed

    def missed(self) -> None:
        """Note that a reader found no place."""
        self._is_crowded = True

    def first_pause(self) -> float:
        """Return the seconds until an update is first asked for.

        After a throng, readers that are further let the others go first.
        """
        if not self._is_crowded:
            return 0.0
        self._is_crowded = False
        return random.uniform(0.0, _LONGEST)

    def pause(self, throng: int) -> float:
        """Return the seconds until a reader that found no place asks again.

        Args:
            throng: How often in a row it was too late since.
        """
        return random.uniform(_SHORTEST, _LONGEST * 2 ** min(throng, _MOST_DOUBLINGS))
