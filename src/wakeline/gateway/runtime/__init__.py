"""Runtime: supervised tasks, long work in slices, walks, timetables, and the wall clock.

Every room may import it, and it imports none. Open `tasks.py` first.
"""

from __future__ import annotations

from wakeline.background import failing
from wakeline.gateway.runtime.clock import forget_steps, listen_steps, watch_clock
from wakeline.gateway.runtime.grouped import Grouped
from wakeline.gateway.runtime.slices import Slice, read_whole_in_slices
from wakeline.gateway.runtime.tasks import supervised
from wakeline.gateway.runtime.timetable import Timetable
from wakeline.gateway.runtime.troubles import LoggedOutage, StoreOutage, is_logged, log_failure
from wakeline.gateway.runtime.walk import Walk
