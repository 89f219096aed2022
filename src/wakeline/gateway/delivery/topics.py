"""Which topics a reader gets: what it asked for, within what it may."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2s
from typing import Any, Final, Self

from wakeline.errors import RequestInvalidError
from wakeline.events import ATTEMPT_SUPERSEDED, COMPACT, check_topic

MOST_PAGES: Final = 64
"""The most pages that one request scans for a matching event; its cursor then leads on."""

FILTERED_EVENTS: Final = 1000
"""Events that a read of some topics scans in one step, however small its limit."""

MAX_TOPICS: Final = 100
"""The most topics of one reader: each event is matched against each set of topics."""


class Topics:
    """A set of topics, given by names and by beginnings (`status`, `$run.*`).

    Equal sets are equal objects to a dictionary: readers who want the same topics are written the same bytes.

    Args:
        patterns: Names; one that ends in `*` stands for every topic that begins so, and for itself.
        within: Only those of this set too.
    """

    __slots__ = ("_all", "_hash", "_parts")

    def __init__(self, patterns: Iterable[str], within: Topics | None = None) -> None:
        self._all: frozenset[frozenset[str]] = frozenset({frozenset(patterns)}) | (within._all if within else set())
        self._parts = [
            (names, tuple(name[:-1] for name in names if name.endswith("*"))) for names in sorted(self._all, key=sorted)
        ]
        self._hash = hash(self._all)

    @classmethod
    def parse(cls, text: str, within: Topics | None = None) -> Self:
        """Read a comma-separated list.

        Raises:
            RequestInvalidError: There are more than `MAX_TOPICS`.
            TopicInvalidError: One is not a topic's name.
        """
        names = text.split(",", MAX_TOPICS)
        if len(names) > MAX_TOPICS:
            raise RequestInvalidError(
                f"expected at most {MAX_TOPICS} topics, got more",
                hint="Name beginnings, such as status.*, or read all topics and pass over what you do not need.",
            )
        return cls([check_topic(name, own=True) for name in names], within)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The names and beginnings of a set that was not made within another one."""
        (names,) = self._all
        return tuple(sorted(names))

    @property
    def tag(self) -> str:
        """A short name of the set, the same in every process."""
        canonical = sorted(sorted(names) for names in self._all)
        return blake2s(repr(canonical).encode(), digest_size=8).hexdigest()

    def __contains__(self, topic: object) -> bool:
        """Whether a topic is in the set."""
        return isinstance(topic, str) and all(
            topic in names or (prefixes and topic.startswith(prefixes)) for names, prefixes in self._parts
        )

    def __eq__(self, other: Any) -> bool:
        """Whether the sets were given alike."""
        return isinstance(other, Topics) and self._all == other._all

    def __hash__(self) -> int:
        """The same for equal sets."""
        return self._hash


class CompactTopics(Topics):
    """The topics of a reader of the compact view, which always gets what tells it what counts.

    Args:
        topics: The topics that it gets beside.
    """

    __slots__ = ()

    def __init__(self, topics: Topics) -> None:
        self._all, self._parts, self._hash = topics._all, topics._parts, topics._hash

    @property
    def tag(self) -> str:
        """A short name of the set, the same in every process."""
        return f"compact-{super().tag}"

    def __contains__(self, topic: object) -> bool:
        """Whether a topic is in the set."""
        return topic in (ATTEMPT_SUPERSEDED, COMPACT) or super().__contains__(topic)

    def __eq__(self, other: Any) -> bool:
        """Whether the sets were given alike."""
        return isinstance(other, CompactTopics) and super().__eq__(other)

    def __hash__(self) -> int:
        """The same for equal sets."""
        return hash((CompactTopics, self._hash))
