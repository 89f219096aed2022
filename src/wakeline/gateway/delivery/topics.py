"""Sets of topics: the ones that a reader requested, within the ones that it may read."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2s
from typing import Any, Final, Self

from wakeline.errors import RequestInvalidError
from wakeline.events import ATTEMPT_SUPERSEDED, COMPACT, check_topic

MOST_PAGES: Final = 64
"""The most pages that one request scans for matching events; the next one continues at its cursor."""

FILTERED_EVENTS: Final = 1000
"""Events that a read with a filter of topics scans in one step, independent of its limit."""

MAX_TOPICS: Final = 100
"""The most topics of one reader: each event is matched against each set of topics."""


class Topics:
    """A set of topics, given by names and prefixes (`status`, `$run.*`).

    Equal sets are equal as keys of a dictionary, so that readers of the same topics share a lane.

    Args:
        patterns: Names. A name that ends in `*` stands for every topic with this prefix, and for itself.
        within: Another set that topics must also be in; None for no other condition.
    """

    __slots__ = ("_all", "_hash", "_parts")

    def __init__(self, patterns: Iterable[str], within: Topics | None = None) -> None:
        self._set(frozenset({frozenset(patterns)}) | (within._all if within else set()))

    def _set(self, all_names: frozenset[frozenset[str]]) -> None:
        self._all = all_names
        self._parts = [
            (names, tuple(name[:-1] for name in names if name.endswith("*"))) for names in sorted(all_names, key=sorted)
        ]
        self._hash = hash(all_names)

    @classmethod
    def parse(cls, text: str, within: Topics | None = None) -> Self:
        """Return the set of a comma-separated list of names and prefixes.

        Raises:
            RequestInvalidError: There are more than `MAX_TOPICS`.
            TopicInvalidError: One is not a topic's name.
        """
        names = text.split(",", MAX_TOPICS)
        if len(names) > MAX_TOPICS:
            raise RequestInvalidError(
                f"expected at most {MAX_TOPICS} topics, got more",
                hint="Use prefixes, such as status.*, or read all topics and ignore the events that you do not need.",
            )
        return cls([check_topic(name, own=True) for name in names], within)

    def of_compact_view(self) -> Topics:
        """Return the set with the topics that every reader of the compact view needs."""
        made = Topics(())
        made._set(frozenset(names | {ATTEMPT_SUPERSEDED, COMPACT} for names in self._all))
        return made

    @property
    def patterns(self) -> tuple[str, ...]:
        """The names and prefixes of a set without `within`, sorted."""
        (names,) = self._all
        return tuple(sorted(names))

    @property
    def tag(self) -> str:
        """A short name of the set, the same in every process."""
        canonical = sorted(sorted(names) for names in self._all)
        return blake2s(repr(canonical).encode(), digest_size=8).hexdigest()

    def __contains__(self, topic: object) -> bool:
        """Return whether a topic is in the set."""
        return isinstance(topic, str) and all(
            topic in names or (prefixes and topic.startswith(prefixes)) for names, prefixes in self._parts
        )

    def __eq__(self, other: Any) -> bool:
        """Return whether the sets were given by the same names and prefixes."""
        return isinstance(other, Topics) and self._all == other._all

    def __hash__(self) -> int:
        """Return a hash that is the same for equal sets."""
        return self._hash
