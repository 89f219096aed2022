"""Following: from Temporal into sessions, with one reader per run.

It finds the workflows to follow, copies their streams, and reports how each run ends. `inputs` and `http` ask it to follow,
and `app` starts it. Open `followers.py` first, then `follower.py`: the life of one run.
"""

from __future__ import annotations

from wakeline.gateway.following.followers import Followers

__all__ = ["Followers"]
