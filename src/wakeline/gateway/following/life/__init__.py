"""The life of a run as a pure reducer: from observations to phases and effects."""

from __future__ import annotations

from wakeline.gateway.following.life.reducer import begin, reduce
from wakeline.gateway.following.life.rules import RULES, picture

__all__ = ["RULES", "begin", "picture", "reduce"]
