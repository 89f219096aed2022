"""Following: from Temporal into sessions, with one reader per run.

It finds the workflows to follow, copies their streams, and reports how each run ends. `inputs` uses its connections, `http` asks
it to follow, and `app` starts it. Open `followers.py` first, then `follower.py`: the life of one run.
"""

from __future__ import annotations

from wakeline.gateway.following.copying.told import failure as describe_failure
from wakeline.gateway.following.copying.told import result as describe_result
from wakeline.gateway.following.finding.rules import can_be_quoted, quoted
from wakeline.gateway.following.followers import Followers
from wakeline.gateway.following.reaching.connection import Connection, Options
from wakeline.gateway.following.reaching.namespaces import Namespaces
from wakeline.gateway.following.reaching.options import options_of
from wakeline.gateway.following.sessions import SESSION_MEMO

__all__ = [
    "SESSION_MEMO",
    "Connection",
    "Followers",
    "Namespaces",
    "Options",
    "can_be_quoted",
    "describe_failure",
    "describe_result",
    "options_of",
    "quoted",
]
