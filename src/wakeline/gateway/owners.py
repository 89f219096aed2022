"""To whom a publisher belongs: no other token may supersede its events, or fence it."""

from __future__ import annotations

import msgspec

from wakeline.errors import PublisherTakenError

CLAIM = "claim"
"""The owner of publishers that tokens name in `wakeline.publishers`: all of those tokens are one owner."""


class Owner(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The owner of a publisher.

    Attributes:
        name: `user:` and the token's `sub`, or `CLAIM`.
        topics: The names and beginnings that the token is held to; None for all topics.
    """

    name: str
    topics: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, text: str | None) -> Owner | None:
        """Read an owner back from what an engine keeps."""
        return None if text is None else _decode(text)

    def text(self) -> str:
        """What an engine keeps."""
        return msgspec.json.encode(self).decode()

    def covers(self, topics: tuple[str, ...] | None) -> bool:
        """Whether everything that a token with these topics may publish may be published by this owner's tokens, too."""
        if self.topics is None:
            return True
        return topics is not None and all(matches(self.topics, topic) for topic in topics)


def takes_over(publisher: str, held: Owner | None, by: Owner | None) -> bool:
    """Whether a publisher changes hands when it is used by `by`.

    A publisher without an owner belongs to nobody until it is used. One that a user has opened gives way to the tokens
    that name it in `wakeline.publishers`: so nobody can keep a worker out by opening the names of its activities before it.

    Args:
        publisher: Its name.
        held: Whose it is; None for nobody's.
        by: Who uses it; None for the gateway itself, and where nobody is asked for a token.

    Raises:
        PublisherTakenError: It is somebody else's.
    """
    if held is None or by is None or held == by:
        return False
    if held.name != by.name and by.name != CLAIM:
        raise PublisherTakenError(f"expected a publisher of this token's own, another one has opened {publisher!r}")
    if not by.covers(held.topics):
        raise PublisherTakenError(
            f"expected a token with all topics of the one that has opened {publisher!r}, this one is held to fewer"
        )
    return held.name != by.name


def matches(patterns: tuple[str, ...], name: str) -> bool:
    """Whether a name, or a beginning that ends in `*`, is covered by names and beginnings."""
    return any(name.startswith(known[:-1]) if known.endswith("*") else name == known for known in patterns)


_decode = msgspec.json.Decoder(Owner).decode
