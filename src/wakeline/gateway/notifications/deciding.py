"""Decides which notifications follow from a page of the log, positions and the time.

The functions have no clock and do no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from wakeline.events import INPUT_REQUESTED, INPUT_RESOLVED, Event
from wakeline.gateway.devices import Furthest
from wakeline.gateway.notifications.questions import Question, asked, closed, messages_after, waiting_after
from wakeline.gateway.notifications.rules import Rules
from wakeline.gateway.notifications.values import Box, Message, Waiting
from wakeline.notices import Notice

MOST_USERS: Final = 1_000
"""The most users who are notified of one event, first by name: a box is one record."""

OLDEST: Final = 7 * 86_400.0
"""Seconds after which an event is not matched any more.

A session that was restored or imported is matched from its beginning. The ids are those of the first time, and receivers
remember them for longer than this.
"""

WAITING_BYTES: Final = 48 * 1024
"""Bytes of waiting events from which no further event is matched: the log holds the rest."""

PENDING_BYTES: Final = 64 * 1024
PENDING_MESSAGES: Final = 100
"""Pending messages of a session from which no further one is decided, in bytes and number."""

BOX_BYTES: Final = 208 * 1024
"""Bytes of a box with pending messages that no further one may exceed: the rest of its record is for attempts."""

_USER_BYTES: Final = 96 * 1024  # what one user is sent at a time, through all channels: one user is decided at least
_MESSAGE_BYTES: Final = 24 * 1024

_MOST_EVENT_BYTES: Final = 1024
_MOST_EVENTS: Final = 10  # whose JSON is in one message


class _Known(msgspec.Struct):
    time: str
    offset: int = 0
    topic: str = ""
    run: str | None = None
    notify: msgspec.Raw | UnsetType = UNSET


class _Ended(msgspec.Struct):
    status: str = ""


class _Closed(msgspec.Struct):
    data: _Ended = msgspec.field(default_factory=_Ended)


_WORDLESS: Final = Notice("")
_known = msgspec.json.Decoder(_Known)
_notices = msgspec.json.Decoder(Notice)
_closed = msgspec.json.Decoder(_Closed)


def matched(box: Box, session: str, events: Sequence[Event], next_offset: int, rules: Rules, now: float) -> Box:
    """Return the box after the rules were applied to the next page of the log.

    Args:
        box: The box; the page begins at its cursor, or after events that no rule can match.
        session: The session's name.
        events: The page's events whose topics a rule names.
        next_offset: The offset after the page.
        rules: The rules.
        now: Unix time; events older than `OLDEST` are not matched.

    Returns:
        The box with its cursor at the page's end, or earlier if it holds `WAITING_BYTES`.
    """
    waiting, messages, size = list(box.waiting), box.messages, sum(map(_length, box.waiting))
    for event in events:
        if size >= WAITING_BYTES:
            return msgspec.structs.replace(box, waiting=tuple(waiting), messages=messages, offset=event.offset)
        body = event.json()
        if event.topic == INPUT_RESOLVED:
            request = closed(body)
            waiting, messages = waiting_after(waiting, request), messages_after(messages, request)
            size = sum(map(_length, waiting))
        known = _known.decode(body)
        notice, status = _notice(known), partial(_status, body)
        for rule in rules.matching(session, event.topic, known.time, now - OLDEST, status, asked=notice is not None):
            at, shown = rule.due(known.time, now, notice), _shown(event, body, known)
            request, audience, linkable = asked(body) if event.topic == INPUT_REQUESTED else Question()
            item = Waiting(
                event.offset,
                rule.name,
                known.time,
                at,
                shown,
                notice=notice,
                request=request,
                audience=audience,
                linkable=linkable,
            )
            waiting.append(item)
            size += _length(item)
    return msgspec.structs.replace(box, waiting=tuple(waiting), messages=messages, offset=next_offset)


def due(box: Box, rules: Rules) -> float | None:
    """Return the Unix time at which the box has work; None if it has none."""
    times = [message.due for message in box.messages if message.state == "pending"]
    times += [0.0 for item in box.waiting if item.rule not in rules]
    times += [_ready_at(group, rules) for group in _digests(box, rules).values()]
    return min(times, default=None)


def decided(box: Box, session: str, rules: Rules, furthest: Mapping[str, Furthest], now: float) -> Box:
    """Return the box after everything that is due was decided.

    A digest is decided when all of its events have had their grace time, or the first of them has had it twice. Events that
    have not had theirs then wait for the next decision. A user who has not seen some of the events gets one message for each
    channel with all of those.

    Args:
        box: The box.
        session: The session's name.
        rules: The rules; events of a rule that is gone are dropped.
        furthest: The furthest positions of each user who has a device in the session.
        now: Unix time.
    """
    waiting: list[Waiting] = []
    for digest, group in _digests(box, rules).items():
        if _ready_at(group, rules) <= now:
            ready = [item for item in group if item.due <= now]
            waiting += [item for item in group if item.due > now]
            box, rest = _decide(box, session, digest, ready, rules, furthest, now)
            waiting += rest
        else:
            waiting += group
    waiting.sort(key=lambda item: (item.offset, item.rule))
    return msgspec.structs.replace(box, waiting=tuple(waiting))


def _digests(box: Box, rules: Rules) -> dict[str, list[Waiting]]:
    found: dict[str, list[Waiting]] = {}
    for item in box.waiting:
        if item.rule in rules:
            found.setdefault(rules.digest(item), []).append(item)
    return found


def _ready_at(group: Sequence[Waiting], rules: Rules) -> float:
    """Return the Unix time at which a digest is decided, if no event is added to it."""
    return min(max(item.due for item in group), *(item.due + rules[item.rule].rule.grace for item in group))


def cancelled(box: Box, furthest: Mapping[str, Furthest], now: float) -> Box:
    """Return the box with the due messages cancelled whose events the user has seen meanwhile."""
    messages = tuple(
        msgspec.structs.replace(message, state="cancelled")
        if message.state == "pending"
        and message.due <= now
        and not message.forced
        and is_past(furthest.get(message.user), message.last, message.unless)
        else message
        for message in box.messages
    )
    return msgspec.structs.replace(box, messages=messages)


def is_past(furthest: Furthest | None, offset: int, unless: str) -> bool:
    """Return whether a user's devices are past an event."""
    return furthest is not None and (furthest.seen if unless == "seen" else furthest.delivered) > offset


def _decide(
    box: Box,
    session: str,
    digest: str,
    ready: Sequence[Waiting],
    rules: Rules,
    furthest: Mapping[str, Furthest],
    now: float,
) -> tuple[Box, list[Waiting]]:
    """Decide events of one digest for each user.

    Returns:
        The box, and the events that are not decided for all users yet.
    """
    messages = list(box.messages)
    pending = [message for message in messages if message.state == "pending"]
    number, size, waiting = len(pending), sum(map(size_of, pending)), sum(map(_length, box.waiting))
    last: str | None = None
    named = [rules[item.rule].users(item) for item in ready]
    chosen = {users: frozenset(sorted(users or furthest)[:MOST_USERS]) for users in named}
    audiences = [chosen[users] for users in named]
    for user in sorted(frozenset().union(*chosen.values())):
        unseen = [
            item
            for item, audience in zip(ready, audiences, strict=True)
            if user in audience
            and (item.after is None or user > item.after)
            and not is_past(furthest.get(user), item.offset, rules[item.rule].rule.unless)
        ]
        new = _messages(session, user, digest, unseen, rules, now)
        added = sum(map(size_of, new))
        is_full = number >= PENDING_MESSAGES or size >= PENDING_BYTES or waiting + size + added > BOX_BYTES
        if number and is_full:  # the next turn goes on behind the last user
            rest = [msgspec.structs.replace(item, after=_later(item.after, last)) for item in ready]
            return msgspec.structs.replace(box, messages=tuple(messages)), rest
        messages += new
        number, size, last = number + len(new), size + added, user
    return msgspec.structs.replace(box, messages=tuple(messages)), []


def _later(one: str | None, other: str | None) -> str | None:
    return other if one is None else one if other is None else max(one, other)


def _messages(
    session: str, user: str, digest: str, unseen: Sequence[Waiting], rules: Rules, now: float
) -> list[Message]:
    """Return one message for each channel."""
    found: dict[str, list[Waiting]] = {}
    for item in unseen:
        for channel in rules.channels(item.rule):
            found.setdefault(channel, []).append(item)
    most = min(_MESSAGE_BYTES, _USER_BYTES // max(1, len(found)))
    return [
        _shortened(_message(session, user, channel, digest, items, rules, now), most)
        for channel, items in sorted(found.items())
    ]


def _shortened(message: Message, most: int) -> Message:
    """Return a message of at most so many bytes, without its events' data if it is longer.

    One that is still longer loses its requests, and is not cancelled when they are closed.
    """
    if size_of(message) <= most:
        return message
    short = msgspec.structs.replace(message, events=tuple(map(_without_data, message.events)))
    return short if size_of(short) <= most else msgspec.structs.replace(short, requests=())


def _message(
    session: str, user: str, channel: str, digest: str, items: Sequence[Waiting], rules: Rules, now: float
) -> Message:
    events = {item.offset: item.event for item in items}  # two rules of one digest may match one event
    named = [session, user, channel, digest, *(f"{item.offset} {item.time} {item.rule}" for item in items)]
    words = next((item.notice for item in reversed(items) if item.notice is not None), _WORDLESS)
    linked = {item.request: item.time for item in items if rules.links(item, user)}
    strictest = all(rules[item.rule].rule.unless == "delivered" for item in items)
    return Message(
        id="msg_" + sha256(msgspec.json.encode(named)).hexdigest()[:32],
        user=user,
        channel=channel,
        rules=tuple(dict.fromkeys(item.rule for item in items)),
        digest=digest,
        created=round(now, 3),  # as it is shown, so that `from` and `to` of a replay are exact
        first=min(events),
        last=max(events),
        count=len(events),
        events=tuple(events[offset] for offset in sorted(events)[-_MOST_EVENTS:]),
        unless="delivered" if strictest else "seen",
        due=now,
        critical=any(rules[item.rule].is_critical(item.notice) for item in items),
        title=words.title,
        body=words.body,
        url=words.url,
        requests=tuple(dict.fromkeys(item.request for item in items)) if all(item.request for item in items) else (),
        linked=tuple(linked)[-_MOST_EVENTS:],
        asked_at=tuple(linked.values())[-_MOST_EVENTS:],
    )


def is_full(box: Box) -> bool:
    """Return whether no further message is decided until pending ones have ended."""
    pending = [message for message in box.messages if message.state == "pending"]
    return len(pending) >= PENDING_MESSAGES or sum(map(size_of, pending)) >= PENDING_BYTES


def size_of(message: Message) -> int:
    """Return the bytes of a message in its record."""
    return len(msgspec.json.encode(message))


def _length(item: Waiting) -> int:
    return len(msgspec.json.encode(item))


def _status(body: bytes) -> str:
    """Return the status of a `$run.closed`; empty if its data has none."""
    try:
        return _closed.decode(body).data.status
    except msgspec.DecodeError:
        return ""


def _notice(known: _Known) -> Notice | None:
    """Return an event's notice; None if it has none, or one of a later version."""
    if isinstance(known.notify, UnsetType):
        return None
    try:
        return _notices.decode(known.notify)
    except msgspec.DecodeError:
        return None


def _shown(event: Event, body: bytes, known: _Known) -> msgspec.Raw:
    return msgspec.Raw(body) if len(body) <= _MOST_EVENT_BYTES else _named(event.offset, event.topic, known)


def _without_data(event: msgspec.Raw) -> msgspec.Raw:
    known = _known.decode(event)
    return _named(known.offset, known.topic, known)


def _named(offset: int, topic: str, known: _Known) -> msgspec.Raw:
    short = {"offset": offset, "topic": topic, "time": known.time}
    return msgspec.Raw(msgspec.json.encode(short | ({"run": known.run} if known.run is not None else {})))
