"""Following: from Temporal into sessions, with one reader per run, whatever the number of devices.

It finds the workflows to follow, copies their streams, and reports how each run ends. Only `app` may import it. Open
`followers.py` first, then `follower.py`: the life of one run.
"""

from __future__ import annotations

from wakeline.gateway.following.followers import Followers
from wakeline.gateway.following.reaching.connection import Options
from wakeline.gateway.following.reaching.namespaces import Namespaces
from wakeline.gateway.following.reaching.options import options_of

__all__ = [
    "Followers",
    "Namespaces",
    "Options",
    "options_of",
]
