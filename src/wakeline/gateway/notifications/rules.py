"""The rules of the settings: which events lead to notifications, and through which channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from wakeline import events
from wakeline.errors import SettingsInvalidError
from wakeline.events import INPUT_REQUESTED, INPUT_RESOLVED, RUN_CLOSED, check_beginning
from wakeline.gateway.log import matches
from wakeline.gateway.notifications.values import Waiting
from wakeline.gateway.rules import Notify
from wakeline.gateway.setting_refusals import meant
from wakeline.notices import MARK, Notice

OWN_TOPICS: Final = tuple(
    topic
    for topic in vars(events).values()
    if isinstance(topic, str) and topic.startswith("$") and topic != events.COMPACT  # which no log has
)
"""The topics of Wakeline's own events in a log."""


@dataclass(frozen=True)
class NamedRule:
    """A rule of the settings with its name, and when this store first had it.

    Attributes:
        name: Its name.
        rule: The rule.
        since: Unix time: earlier events are not matched.
    """

    name: str
    rule: Notify
    since: float = 0.0

    def due(self, time: str, now: float, notice: Notice | None = None) -> float:
        """Return the Unix time at which an event's notifications are decided.

        An event whose time is in the future, because a clock was set back since, counts as one of now.
        """
        return min(_unix(time), now) + (0.0 if self.is_critical(notice) else self.rule.grace)

    def is_critical(self, notice: Notice | None) -> bool:
        """Return whether an event is notified at once and alone."""
        return self.rule.critical or (self.rule.by_publisher and notice is not None and notice.critical)

    def users(self, item: Waiting) -> tuple[str, ...]:
        """Return the users to notify; none: all who have a device in the session."""
        asked = item.notice.named if self.rule.by_publisher and item.notice is not None else ()
        return asked or self.rule.users or item.audience


class Rules:
    """All rules, by name.

    Args:
        rules: The rules of the settings.
        channels: The names of the channels.
        since: When the store first had each rule.

    Raises:
        SettingsInvalidError: A rule names a channel or a topic of Wakeline's that there is not, or a pattern that is none.
    """

    def __init__(
        self, rules: Mapping[str, Notify], channels: Iterable[str], since: Mapping[str, float] | None = None
    ) -> None:
        self._channels = tuple(channels)
        self._rules = {name: NamedRule(name, rule, (since or {}).get(name, 0.0)) for name, rule in rules.items()}
        self._topics = tuple({topic for rule in rules.values() for topic in rule.topics})
        self._asked = tuple({topic for rule in rules.values() if rule.by_publisher for topic in rule.topics})
        self._unasked = tuple({topic for rule in rules.values() if not rule.by_publisher for topic in rule.topics})
        for name, rule in rules.items():
            self._check(name, rule)

    def _check(self, name: str, rule: Notify) -> None:
        unknown = [channel for channel in rule.channels if channel not in self._channels]
        if not self._channels:
            raise SettingsInvalidError(
                f"expected a channel through which notify.{name} notifies, got settings without channels",
                hint="Add one: a table such as [channels.ops] with url and secrets, or leave the rule out.",
            )
        if unknown:
            raise SettingsInvalidError(
                f"expected channels of notify.{name} to be of {', '.join(self._channels)}, got {unknown[0]!r}",
                hint=f"Name one of these, or add a table [channels.{unknown[0]}].",
            )
        for option, patterns in (("topics", rule.topics), ("sessions", rule.sessions)):
            for pattern in patterns:
                check_beginning(pattern, f"notify.{name}.{option}")
        for topic in rule.topics:
            # No publisher may append to another topic that begins with $, so the rule would never match.
            if topic.startswith("$") and not any(matches((topic,), own) for own in OWN_TOPICS):
                raise SettingsInvalidError(
                    f"expected topics of notify.{name} that begin with $ to be Wakeline's own, "
                    f"got {topic!r}{meant(topic, OWN_TOPICS)}",
                    hint=f"They are {', '.join(OWN_TOPICS)}.",
                )

    def __contains__(self, name: str) -> bool:
        return name in self._rules

    def __getitem__(self, name: str) -> NamedRule:
        return self._rules[name]

    def names_topic(self, topic: str) -> bool:
        """Return whether any rule names a topic, or needs its events."""
        return matches(self._topics, topic) or self._closes(topic)

    def may_match(self, topic: str, body: bytes) -> bool:
        """Return whether an event may match any rule, or ends what one has matched."""
        if matches(self._unasked, topic) or self._closes(topic):
            return True
        return bool(self._asked) and MARK in body and matches(self._asked, topic)

    def _closes(self, topic: str) -> bool:
        """Return whether an event of a topic closes requests of which users are notified."""
        return topic == INPUT_RESOLVED and matches(self._topics, INPUT_REQUESTED)

    def matching(
        self, session: str, topic: str, time: str, since: float, status: Callable[[], str], *, asked: bool = False
    ) -> Sequence[NamedRule]:
        """Return the rules that an event matches.

        Args:
            session: The session's name.
            topic: The event's topic.
            time: The event's time.
            since: Unix time: earlier events match no rule.
            status: Returns the status of a `$run.closed`.
            asked: Whether its publisher asks to notify users.
        """
        if _unix(time) < since:
            return []
        rules = [named for named in self._rules.values() if asked or not named.rule.by_publisher]
        return [named for named in rules if _matches(named, session, topic, time, status)]

    def channels(self, name: str) -> Sequence[str]:
        """Return the channels of a rule: those that it names, or all."""
        return self._rules[name].rule.channels or self._channels

    def links(self, item: Waiting, user: str) -> bool:
        """Return whether a user gets a link that answers the request of an event.

        A link answers without a token, so it is only for the users that the request itself names.
        """
        return self._rules[item.rule].rule.links and item.linkable and user in item.audience

    def digest(self, item: Waiting) -> str:
        """Return the name under which an event is folded; a critical one is alone."""
        named = self._rules[item.rule]
        if named.is_critical(item.notice):
            return f"{item.rule}@{item.offset}"
        asked = item.notice.digest if named.rule.by_publisher and item.notice is not None else ""
        return asked or named.rule.digest or item.rule


def _matches(named: NamedRule, session: str, topic: str, time: str, status: Callable[[], str]) -> bool:
    rule = named.rule
    return (
        matches(rule.topics, topic)
        and matches(rule.sessions, session)
        and (topic != RUN_CLOSED or not rule.statuses or status() in rule.statuses)
        and _unix(time) >= named.since
    )


def _unix(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
