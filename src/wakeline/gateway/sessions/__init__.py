"""Sessions: their beginning, retention, deletion, and the records of what belongs to them.

It deletes, trims, exports, imports and restores sessions, and stores the records of each session's runs, inputs and
requests. `transports`, `following`, `inputs`, `requests` and `http` may import it. Open `runs.py` first, then `deletion.py`:
the order in which a session's parts are removed.
"""

from __future__ import annotations

from wakeline.gateway.sessions.archive import Archive
from wakeline.gateway.sessions.arrivals import Arrivals
from wakeline.gateway.sessions.config import (
    Retention,
    SessionConfig,
    check_content_type,
    decode_config,
    encode_config,
    outlives,
)
from wakeline.gateway.sessions.core import Core
from wakeline.gateway.sessions.deletion import Deletions
from wakeline.gateway.sessions.exported import Importer
from wakeline.gateway.sessions.input_requests import (
    Answered,
    Claimed,
    ClosedAs,
    Delivery,
    InputRequest,
    InputRequests,
    Requested,
    RequestKind,
    Resolved,
)
from wakeline.gateway.sessions.intents import Intent, Intents, Kind, Settled, Starting
from wakeline.gateway.sessions.moving import Move, Moved, check_unused
from wakeline.gateway.sessions.registrations import (
    NOT_ALLOWED,
    NOT_FOUND,
    NamedWorkflow,
    Registrations,
    Unfollowed,
    UnfollowedWorkflow,
    named_workflow,
)
from wakeline.gateway.sessions.remembered import Remembered
from wakeline.gateway.sessions.restoring import carried, renew_if_restored
from wakeline.gateway.sessions.retention import Keeper
from wakeline.gateway.sessions.run import (
    STATUSES,
    Followed,
    Run,
    RunState,
    Status,
    Telling,
    Unread,
    has_ended,
    status_of,
)
from wakeline.gateway.sessions.run_names import RunNames
from wakeline.gateway.sessions.runs import Runs
from wakeline.gateway.sessions.slices import key_hash
