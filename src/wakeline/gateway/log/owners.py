"""Owners of publishers: only their tokens may fence a publisher or supersede its events."""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec

from wakeline.errors import PublisherTakenError, TooManyPublishersError

CLAIM = "claim"
"""The one owner of all publishers that tokens name in `wakeline.publishers`."""

MAX_PUBLISHERS: Final = 10_000
"""The most publishers of one user in a session's life."""


class Owner(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The owner of a publisher.

    Attributes:
        name: `user:` and the token's `sub`, or `CLAIM`.
        topics: The names and prefixes that the token is limited to; None for all topics.
    """

    name: str
    topics: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, text: str | None) -> Owner | None:
        """Return the owner in the text that an engine stores; None for a publisher without one."""
        return None if text is None else _decode(text)

    def text(self) -> str:
        """Return the text that an engine stores."""
        return msgspec.json.encode(self).decode()

    def covers(self, topics: tuple[str, ...] | None) -> bool:
        """Return whether this owner's tokens may publish to all of these topics; None is all topics."""
        if self.topics is None:
            return True
        return topics is not None and all(matches(self.topics, topic) for topic in topics)


def takes_over(publisher: str, held: Owner | None, by: Owner | None) -> bool:
    """Return whether `by` becomes the owner of a publisher by using it.

    A publisher without an owner belongs to its first user. Tokens that name it in `wakeline.publishers` take it over from a
    user that has opened it, so that no user can keep a worker out by opening the names of its activities first.

    Args:
        publisher: The publisher's name.
        held: Its present owner; None if it has none.
        by: The owner that uses it; None for the gateway itself, and where no token is required.

    Raises:
        PublisherTakenError: It has another owner.
    """
    if held is None or by is None or held == by:
        return False
    if held.name != by.name and by.name != CLAIM:
        raise PublisherTakenError(f"expected a publisher of this token's own, another one has opened {publisher!r}")
    if not by.covers(held.topics):
        raise PublisherTakenError(
            f"expected a token with all topics of the one that has opened {publisher!r}, this one is limited to fewer"
        )
    return held.name != by.name


def check_room(session: str, publisher: str, owner: Owner | None, owned: Counter[str]) -> None:
    """Raise unless an owner may have another publisher in a session.

    A token can invent any number of names, and publishers are never forgotten. The number is bounded for each user, so that no
    user closes the session to the others. The gateway's own publishers are exempt, and those that tokens name in
    `wakeline.publishers`: their number grows with the runs.

    Args:
        session: The session's name.
        publisher: The name of the publisher that would be new in it.
        owner: Its owner.
        owned: The number of publishers of each owner in the session.

    Raises:
        TooManyPublishersError: The owner has `MAX_PUBLISHERS` in the session.
    """
    if owner is not None and owner.name != CLAIM and owned[owner.name] >= MAX_PUBLISHERS:
        raise TooManyPublishersError(
            f"expected at most {MAX_PUBLISHERS} publishers of one user in session {session[:64]!r}, {publisher!r} is one more"
        )


def move(owned: Counter[str], before: Owner | None, now: Owner | None) -> None:
    """Count a publisher for its new owner, and no longer for the earlier one."""
    if before is not None:
        owned[before.name] -= 1
    if now is not None:
        owned[now.name] += 1


def matches(patterns: tuple[str, ...], name: str) -> bool:
    """Return whether names and prefixes (`*` at the end) cover a name or a prefix."""
    return any(name.startswith(known[:-1]) if known.endswith("*") else name == known for known in patterns)


_decode = msgspec.json.Decoder(Owner).decode
