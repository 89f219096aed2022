"""What a caller may do: made from its token by `auth`, asked by every route."""

from __future__ import annotations

import time
from typing import Final, Literal, TypeAlias, get_args

import msgspec
from aiohttp import web

from wakeline.errors import NotAllowedError, SessionNotFoundError
from wakeline.gateway.topics import Topics

Action: TypeAlias = Literal["read", "ack", "publish", "input", "manage"]
ACTIONS: Final = frozenset[str](get_args(Action))


class Grant(msgspec.Struct, frozen=True):
    """What one token allows, or what anybody may where nobody is asked.

    Attributes:
        user: The token's `sub`; empty where nobody is asked.
        sessions: Names, or beginnings that end in `*`.
        allow: The actions.
        topics: Only these topics may be read and published; None for all.
        expires: Unix time at which it ends; None for never.
        cache: Full pages may be kept by caches.
    """

    user: str
    sessions: tuple[str, ...]
    allow: frozenset[str]
    topics: Topics | None = None
    expires: float | None = None
    cache: bool = False

    def check(self, action: Action, session: str | None = None) -> None:
        """Raise unless the caller may do this, to this session where one is given.

        Raises:
            NotAllowedError: Not to any session.
            SessionNotFoundError: Not to this one: the same answer as if there were none, so that names are not told.
        """
        if action not in self.allow:
            raise NotAllowedError(f"expected a token that allows {action!r}, it allows {sorted(self.allow)}")
        if session is not None and not self.reaches(session):
            raise SessionNotFoundError(f"there is no session {session!r}")

    def reaches(self, session: str) -> bool:
        """Whether the session is among those granted."""
        return any(session.startswith(name[:-1]) if name.endswith("*") else session == name for name in self.sessions)

    def seconds_left(self) -> float | None:
        """Until it ends; None for never."""
        return None if self.expires is None else max(0.0, self.expires - time.time())


ANYONE: Final = Grant("", ("*",), ACTIONS)
"""Everybody, where the gateway listens on loopback and nobody is asked."""

GRANT: Final = web.RequestKey("grant", Grant)
"""Where a request carries its caller's grant; every request has one before its route is called."""
