"""Grants: what a caller may do. `auth` makes them from tokens, and every route checks them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus
from types import TracebackType
from typing import Final, Literal, TypeAlias, get_args

import msgspec
from aiohttp import web

from wakeline.errors import NotAllowedError, SessionNotFoundError, TokenInvalidError
from wakeline.gateway.access.connection import close_after
from wakeline.gateway.delivery import Topics
from wakeline.gateway.log import CLAIM, Owner, matches
from wakeline.gateway.runtime import forget_steps, listen_steps

Action: TypeAlias = Literal["read", "ack", "publish", "input", "manage", "follow", "restore"]
ACTIONS: Final = frozenset[str](get_args(Action))
_FAREWELL: Final = 0.5
"""Seconds that a stream has for its last bytes after its token has ended."""

_REACH: Final = "Use a token whose claim wakeline.sessions names the session, or a prefix of its name that ends in *."


class Signer:
    """A key that signs tokens; it notifies the holders of its grants when the key is withdrawn.

    Attributes:
        withdrawn: Whether the key was withdrawn; its tokens are then invalid.
    """

    __slots__ = ("_listeners", "withdrawn")

    def __init__(self) -> None:
        self.withdrawn = False
        self._listeners: set[Callable[[], None]] = set()

    def withdraw(self) -> None:
        """Mark the key as withdrawn, and call the registered callbacks."""
        self.withdrawn = True
        listeners, self._listeners = self._listeners, set()
        for listener in listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` when the key is withdrawn; at once if it already is."""
        if self.withdrawn:
            listener()
        else:
            self._listeners.add(listener)

    def forget(self, listener: Callable[[], None]) -> None:
        """Remove a callback."""
        self._listeners.discard(listener)


class Grant(msgspec.Struct, frozen=True):
    """The permissions of one token, or of every caller if the gateway requires no token.

    Attributes:
        user: The token's `sub`; empty if no token is required.
        sessions: Names, or prefixes that end in `*`.
        allow: The allowed actions.
        topics: The only topics that may be read and published; None for all.
        expires: Unix time at which the grant ends; None for never.
        cache: Whether caches may store full pages.
        publishers: Names, or prefixes that end in `*`, of publishers that the caller may use even if others opened them.
        signer: The key that signed the token, if it may be withdrawn; the grant ends with it.
        inputs: The names of the inputs that may be sent, by pattern of sessions.
        roles: The user's roles, for the audience of requests for input.
    """

    user: str
    sessions: tuple[str, ...]
    allow: frozenset[str]
    topics: Topics | None = None
    expires: float | None = None
    cache: bool = False
    publishers: tuple[str, ...] = ()
    signer: Signer | None = None
    inputs: tuple[tuple[str, tuple[str, ...]], ...] = ()
    roles: tuple[str, ...] = ()

    def check(self, action: Action, session: str | None = None) -> None:
        """Raise unless the caller may do this, and if a session is given, to that session.

        Raises:
            NotAllowedError: The grant does not allow the action.
            SessionNotFoundError: The grant does not reach the session. The answer is that of a missing session, so that
                it reveals no names.
        """
        if action not in self.allow:
            raise NotAllowedError(f"expected a token that allows {action!r}, got one that allows {sorted(self.allow)}")
        if session is not None and not self.reaches(session):
            if action == "publish":  # reveals nothing: publishing to a missing session creates it
                raise SessionNotFoundError(f"the token does not reach session {session!r}", hint=_REACH)
            raise SessionNotFoundError(f"there is no session {session!r}")

    def check_input(self, session: str, name: str) -> None:
        """Raise unless the caller may send an input of this name to the runs of this session.

        Raises:
            NotAllowedError: The grant does not allow inputs, or none of this name to this session.
            SessionNotFoundError: The grant does not reach the session.
        """
        self.check("input", session)
        if not self.may_input(session, name):
            raise NotAllowedError(
                f"expected a token that allows the input {name!r} in this session, got one that does not",
                hint="Use a token whose claim wakeline.inputs names the input.",
            )

    def may_input(self, session: str, name: str) -> bool:
        """Return whether the caller may send an input of this name; `$start` allows every rule."""
        if not self.may("input", session):
            return False
        allowed = [names for pattern, names in self.inputs if matches((pattern,), session)]
        # `*` alone stands for signals and updates: the end of a run has to be named.
        named = tuple(each for names in allowed for each in names if each.startswith("$") == name.startswith("$"))
        return matches(named, name) or (name.startswith("$start.") and "$start" in named)

    def check_topic(self, topic: str) -> None:
        """Raise unless the caller may read and publish this topic.

        Raises:
            NotAllowedError: The grant is limited to other topics.
        """
        if not self.may_see(topic):
            raise NotAllowedError(f"expected a topic that the token allows, got {topic[:64]!r}")

    def may_see(self, topic: str) -> bool:
        """Return whether the grant is not limited to other topics."""
        return self.topics is None or topic in self.topics

    def check_signer(self) -> None:
        """Raise if the key that signed the token was withdrawn; call it after a wait.

        Raises:
            TokenInvalidError: The key was withdrawn.
        """
        if self.signer is not None and self.signer.withdrawn:
            raise TokenInvalidError(
                "expected a token signed with one of the issuer's keys, got one whose key was withdrawn"
            )

    def may(self, action: Action, session: str) -> bool:
        """Return whether the caller may do this to this session."""
        return action in self.allow and self.reaches(session)

    def reaches(self, session: str) -> bool:
        """Return whether the grant covers the session."""
        return matches(self.sessions, session)

    def owner_of(self, publisher: str) -> Owner | None:
        """Return the caller as the owner of a publisher; None if no token is required."""
        if not self.user:
            return None
        name = CLAIM if matches(self.publishers, publisher) else f"user:{self.user}"
        return Owner(name, None if self.topics is None else self.topics.patterns)

    def registers(self, workflow_id: str) -> bool:
        """Return whether the caller may register this workflow with any session that it manages.

        A workflow's output belongs to the session of its own name. A token that does not reach that session must not read
        it by registering the workflow with another one, unless it may `follow` every workflow.
        """
        return "follow" in self.allow or self.reaches(workflow_id)

    def may_wait(self, session: str) -> bool:
        """Return whether the caller may wait for a missing session.

        The grant must name the session exactly, or allow to manage it.
        """
        return session in self.sessions or self.may("manage", session)

    def within(self, seconds: float) -> float:
        """Return `seconds`, or the time left if that is less."""
        left = self.seconds_left()
        return seconds if left is None else min(seconds, left)

    def seconds_left(self) -> float | None:
        """Return the seconds until the grant ends; None for never."""
        if self.signer is not None and self.signer.withdrawn:
            return 0.0
        return None if self.expires is None else max(0.0, self.expires - time.time())


ANYONE: Final = Grant("", ("*",), ACTIONS, inputs=(("*", ("*", "$*")),))
"""Any caller, if the gateway listens on loopback and requires no token."""

NOBODY: Final = Grant("", (), frozenset())
"""A WebSocket that has not authenticated yet; it may do nothing."""

GRANT: Final = web.RequestKey("grant", Grant)
"""The key of a request's grant; the middleware sets it before any route is called."""


class WhileGranted:
    """A block that ends, without an error, when a grant ends by the wall clock.

    It is a class and not a generator because every stream holds one, and a generator's frame takes a kilobyte.

    Args:
        grant: The grant.
    """

    __slots__ = ("_grant", "_scope")

    def __init__(self, grant: Grant) -> None:
        self._grant = grant
        self._scope: asyncio.Timeout | None = None

    async def __aenter__(self) -> None:
        """Start the timer; it follows changes of the wall clock and a withdrawal of the key."""
        left = self._grant.seconds_left()
        if left is not None:
            self._scope = asyncio.timeout(left)
            await self._scope.__aenter__()
            listen_steps(self._set_timer)
            if self._grant.signer is not None:
                self._grant.signer.listen(self._set_timer)

    def _set_timer(self) -> None:
        """Move the end of the block: the key was withdrawn, or the wall clock was set."""
        left = self._grant.seconds_left()
        if self._scope is not None and left is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time() + left)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Suppress the timeout if the grant has ended."""
        if self._scope is None:
            return False
        forget_steps(self._set_timer)
        if self._grant.signer is not None:
            self._grant.signer.forget(self._set_timer)
        try:
            await self._scope.__aexit__(kind, error, traceback)
        except TimeoutError:
            self._end()
            return True
        return False

    def _end(self) -> None:
        """React to the end of the grant."""


class Expiring(WhileGranted):
    """A block that ends when the grant of a request ends, and its connection soon after.

    Args:
        request: The request that the block answers.
    """

    __slots__ = ("_request",)

    def __init__(self, request: web.Request) -> None:
        super().__init__(request[GRANT])
        self._request = request

    def _end(self) -> None:
        request = self._request
        request.protocol.close()
        if request.transport is not None:
            asyncio.get_running_loop().call_later(_FAREWELL, request.transport.abort)


async def announce_end(request: web.Request, answer: web.StreamResponse) -> None:
    """Announce that the connection ends after a stream, because its grant may end in it.

    A client that kept the connection for its next request would send that into the end.
    """
    streams = not isinstance(answer, web.Response) and answer.status != HTTPStatus.SWITCHING_PROTOCOLS
    if streams and request.get(GRANT, ANYONE).expires is not None:
        close_after(answer)


def expiring(request: web.Request) -> Expiring:
    """Return a block that ends when the request's grant does.

    The code after the block has half a second for its last bytes. The connection is then aborted, whatever is unsent,
    and accepts no further request, as `announce_end` has announced: the client has to connect with a new token.
    """
    return Expiring(request)
