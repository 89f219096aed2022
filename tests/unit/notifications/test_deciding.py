"""What follows from a page of the log, positions and the time, whatever the order of turns."""

from __future__ import annotations

from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from wakeline.events import Event, compose
from wakeline.gateway.devices import Furthest
from wakeline.gateway.log import MAX_RECORD_BYTES
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.notifications.channels.channel import Outcome
from wakeline.gateway.notifications.deciding import (
    BOX_BYTES,
    OLDEST,
    PENDING_MESSAGES,
    cancelled,
    decided,
    due,
    matched,
)
from wakeline.gateway.notifications.outbox import Outbox
from wakeline.gateway.notifications.rules import Rules
from wakeline.gateway.notifications.sending import after
from wakeline.gateway.notifications.values import KEPT_ATTEMPTS, Box
from wakeline.gateway.rules import Notify

BEGAN = 1_700_000_000.0
RULES = Rules(
    {
        "alerts": Notify(topics=("alert",), grace=10),
        "failures": Notify(topics=("$run.closed",), statuses=("failed", "timed_out"), grace=10, digest="ends"),
        "fires": Notify(topics=("fire",), grace=10, critical=True, users=("ada", "bob")),
        "sent": Notify(topics=("sent",), grace=10, unless="delivered", channels=("push",)),
    },
    ["hook", "push"],
)
TOPICS = ("alert", "$run.closed", "fire", "sent", "other")


def event(offset: int, topic: str, at: float = BEGAN, status: str = "failed", size: int = 0) -> Event:
    data = msgspec.json.encode({"status": status, "text": "x" * size})
    time = f"2023-11-14T22:13:{20 + int(at - BEGAN):02d}.000Z"
    return Event(offset, topic, compose(topic, data, time=time).body)


def page(box: Box, *events: Event, now: float = BEGAN) -> Box:
    known = [one for one in events if RULES.names_topic(one.topic)]
    return matched(box, "s", known, events[-1].offset + 1, RULES, now)


def sends(box: Box) -> list[tuple[str, str, int]]:
    """Who is notified of which event through which channel."""
    found = []
    for message in box.messages:
        for one in message.events:
            found.append((message.user, message.channel, msgspec.json.decode(one)["offset"]))
    return found


def test_a_run_that_ended_in_another_way_is_not_matched() -> None:
    box = page(Box("e", 0), event(0, "$run.closed", status="completed"), event(1, "$run.closed", status="timed_out"))
    assert [item.offset for item in box.waiting] == [1]
    assert box.offset == 2


def test_an_event_of_last_week_is_not_matched() -> None:
    old, young = event(0, "alert"), event(1, "alert", BEGAN + 30)
    assert [item.offset for item in page(Box("e", 0), old, young, now=BEGAN + OLDEST + 15).waiting] == [1]


def test_a_new_rule_concerns_new_events() -> None:
    rules = Rules({"alerts": Notify(topics=("alert",))}, ["hook"], {"alerts": BEGAN + 5})
    box = matched(Box("e", 0), "s", [event(0, "alert"), event(1, "alert", BEGAN + 9)], 2, rules, BEGAN + 9)
    assert [item.offset for item in box.waiting] == [1]


def test_nothing_is_decided_before_the_grace_time_is_over() -> None:
    box = page(Box("e", 0), event(0, "alert"))
    assert due(box, RULES) == BEGAN + 10
    assert decided(box, "s", RULES, {"ada": Furthest(0, 0)}, BEGAN + 9.9) == box
    assert len(decided(box, "s", RULES, {"ada": Furthest(0, 0)}, BEGAN + 10).messages) == 2


def test_a_user_who_watches_is_not_notified_of_what_came_a_moment_ago() -> None:
    box = page(Box("e", 0), event(0, "alert"), event(1, "alert", BEGAN + 9), now=BEGAN + 9)
    positions = {"ada": Furthest(0, 1), "bob": Furthest(0, 0)}
    assert due(box, RULES) == BEGAN + 19
    assert decided(box, "s", RULES, positions, BEGAN + 18).messages == ()
    box = decided(box, "s", RULES, positions, BEGAN + 19)
    assert {(user, offset) for user, _, offset in sends(box)} == {("bob", 0), ("bob", 1), ("ada", 1)}
    assert len(box.messages) == 4, "one for each user and channel"
    assert box.waiting == ()


def test_a_burst_that_does_not_end_is_decided_after_two_grace_times() -> None:
    box = page(Box("e", 0), *(event(offset, "alert", BEGAN + 4 * offset) for offset in range(8)), now=BEGAN + 28)
    assert due(box, RULES) == BEGAN + 20
    box = decided(box, "s", RULES, {"ada": Furthest(0, 0)}, BEGAN + 28)
    assert {offset for _, _, offset in sends(box)} == {0, 1, 2, 3, 4}, "those that have had their grace time"
    assert [item.offset for item in box.waiting] == [5, 6, 7]


def test_delivered_counts_where_the_rule_says_so() -> None:
    box = page(Box("e", 0), event(0, "sent"), event(1, "alert"))
    box = decided(box, "s", RULES, {"ada": Furthest(2, 0)}, BEGAN + 10)
    assert set(sends(box)) == {("ada", "hook", 1), ("ada", "push", 1)}


def test_a_user_who_saw_it_before_the_next_attempt_is_left_alone() -> None:
    box = decided(page(Box("e", 0), event(0, "alert")), "s", RULES, {"ada": Furthest(0, 0)}, BEGAN + 10)
    assert {message.state for message in cancelled(box, {"ada": Furthest(0, 0)}, BEGAN + 10).messages} == {"pending"}
    assert {message.state for message in cancelled(box, {"ada": Furthest(0, 1)}, BEGAN + 10).messages} == {"cancelled"}


def test_a_long_event_is_named_without_its_data() -> None:
    box = page(Box("e", 0), event(0, "alert", size=5_000))
    assert msgspec.json.decode(box.waiting[0].event) == {
        "offset": 0,
        "topic": "alert",
        "time": "2023-11-14T22:13:20.000Z",
    }


def test_a_full_box_holds_its_cursor_back_and_misses_nothing() -> None:
    events = [event(offset, "fire", size=500) for offset in range(400)]
    box, told = Box("e", 0), Counter[tuple[str, str, int]]()
    for _ in range(1_000):
        if box.offset < len(events):
            box = page(box, *events[box.offset :])
        box = decided(box, "s", RULES, {}, BEGAN)
        assert len(box.messages) <= PENDING_MESSAGES + 2
        assert len(msgspec.json.encode(box)) < MAX_RECORD_BYTES // 2
        told.update(sends(box))
        box = msgspec.structs.replace(box, messages=())  # all are sent
        if not box.waiting and box.offset == len(events):
            break
    assert told == Counter(
        (user, channel, n) for user in ("ada", "bob") for channel in ("hook", "push") for n in range(400)
    )


def test_many_users_with_long_names_are_notified_in_several_turns() -> None:
    positions = {f"{number:04d}{'n' * 250}": Furthest(0, 0) for number in range(1_200)}
    box = page(Box("e", 0), *(event(offset, "alert", size=500) for offset in range(10)))
    told = Counter[tuple[str, str, int]]()
    for _ in range(1_000):
        box = decided(box, "s", RULES, positions, BEGAN + 10)
        assert len(msgspec.json.encode(box)) < MAX_RECORD_BYTES // 2
        told.update(sends(box))
        box = msgspec.structs.replace(box, messages=())
        if not box.waiting:
            break
    users = sorted(positions)[:1_000]
    assert told == Counter((user, channel, n) for user in users for channel in ("hook", "push") for n in range(10))


def test_a_full_box_with_all_attempts_fits_its_record() -> None:
    events = [event(offset, "fire", size=900) for offset in range(400)]
    box = decided(page(Box("e", 0), *events), "s", RULES, {}, BEGAN)
    failed = Outcome("failed", "E" * 120)
    for _ in range(7):
        messages = tuple(after(message, failed, BEGAN + 0.123, 14.567, 0.5) for message in box.messages)
        box = msgspec.structs.replace(box, messages=messages)
    assert len(msgspec.json.encode(box)) < MAX_RECORD_BYTES


def test_many_requests_for_many_users_and_channels_fit_the_record() -> None:
    """What a burst of requests makes: as many ids as there are events, for each user and channel."""
    channels = [f"hook{number}" for number in range(8)]
    rules = Rules({"asks": Notify(topics=("$input.requested",), grace=10)}, channels)
    events = [asked(offset, f"{offset:0128d}") for offset in range(300)]
    positions = {f"user{number}": Furthest(0, 0) for number in range(20)}
    box, told = Box("e", 0), Counter[tuple[str, str]]()
    for _ in range(1_000):
        if box.offset < len(events):
            box = matched(box, "s", events[box.offset :], len(events), rules, BEGAN + 10)
        box = decided(box, "s", rules, positions, BEGAN + 10)
        assert len(msgspec.json.encode(box)) < MAX_RECORD_BYTES
        for message in box.messages:
            told[message.user, message.channel] += message.count
        box = msgspec.structs.replace(box, messages=())  # all are sent
        if not box.waiting and box.offset == len(events):
            break
    assert told == Counter(dict.fromkeys(((user, channel) for user in positions for channel in channels), 300))


async def test_a_full_box_is_stored_whatever_its_attempts_were() -> None:
    """Retried by hand again and again, each message has as many attempts as are kept."""
    events = [event(offset, "fire", size=150) for offset in range(400)]
    box = decided(page(Box("e", 0), *events), "s", RULES, {}, BEGAN)
    box = page(box, *events[box.offset :])
    failed = Outcome("failed", "E" * 120, reached=("12345678",) * 2)
    outbox, revision = Outbox(MemoryEngine()), 0
    for _ in range(KEPT_ATTEMPTS):
        again = [msgspec.structs.replace(one, failures=0) for one in box.messages]
        messages = tuple(after(one, failed, BEGAN + 0.123, 14.567, 0.5) for one in again)
        stored = await outbox.save("s", msgspec.structs.replace(box, messages=messages), revision=revision)
        box, revision = stored.box, stored.revision
    assert len(box.messages) >= PENDING_MESSAGES
    assert {message.state for message in box.messages} == {"pending"}
    assert all(message.attempts for message in box.messages)


async def test_a_full_box_is_stored_however_long_the_names_of_devices_are() -> None:
    """The outcome of a push has its devices' names, which users choose."""
    box = page(Box("e", 0), *(event(offset, "fire", size=900) for offset in range(60)))
    (message, *_) = decided(box, "s", RULES, {}, BEGAN).messages
    size = (BOX_BYTES - len(msgspec.json.encode(box))) // PENDING_MESSAGES
    events = (msgspec.Raw(b'"' + b"x" * (size - 450) + b'"'),)
    many = [msgspec.structs.replace(message, id=f"msg_{n:032d}", events=events) for n in range(PENDING_MESSAGES)]
    box = msgspec.structs.replace(box, messages=tuple(many))
    assert BOX_BYTES - 64 * 1024 < len(msgspec.json.encode(box)) <= BOX_BYTES
    pushed = Outcome("failed", "\N{PILE OF POO}" * 120, reached=tuple(f"{number:08d}" for number in range(20)))
    outbox = Outbox(MemoryEngine())
    messages = tuple(after(one, pushed, BEGAN, 14.567, 0.5) for one in box.messages)
    stored = (await outbox.save("s", msgspec.structs.replace(box, messages=messages), revision=0)).box
    assert [(one.id, one.reached) for one in stored.messages] == [(one.id, one.reached) for one in messages]


async def test_an_outbox_that_cannot_be_read_hinders_no_other() -> None:
    engine = MemoryEngine()
    await engine.put_record("notifications/session/a", b'{"of": "a later version"}', revision=0)
    await Outbox(engine).save("s", Box("e", 7), revision=0)
    assert await Outbox(engine).load_all({"a": "e", "s": "e"}) == {"s": Box("e", 7)}


def test_an_event_of_the_future_is_decided_after_its_grace_time() -> None:
    """The clock was set back since."""
    box = page(Box("e", 0), event(0, "alert", BEGAN + 30), now=BEGAN)
    assert due(box, RULES) == BEGAN + 10


def asked(offset: int, request: str) -> Event:
    data = msgspec.json.encode({"id": request, "reason": "a"})
    return Event(offset, "$input.requested", compose("$input.requested", data, time="2023-11-14T22:13:20.000Z").body)


logs = st.lists(st.sampled_from(TOPICS), min_size=1, max_size=12)
turns = st.lists(
    st.tuples(st.integers(1, 5), st.integers(0, 40), st.dictionaries(st.sampled_from("abc"), st.integers(0, 12))),
    max_size=6,
)


@given(logs, turns)
def test_whatever_the_turns_each_user_is_notified_once_of_what_no_device_has_seen(
    topics: list[str], turns: list[tuple[int, int, dict[str, int]]]
) -> None:
    """A turn reads some events, some time passes, and devices come to see more."""
    events = [event(offset, topic, BEGAN + offset % 3) for offset, topic in enumerate(topics)]
    box, now, seen = Box("e", 0), BEGAN, dict.fromkeys("abc", 0)
    unseen_at_the_time: set[tuple[str, int]] = set()
    for read, passed, positions in [*turns, (len(events), 100, {})]:
        now += passed
        seen = {user: max(offset, positions.get(user, 0)) for user, offset in seen.items()}
        if box.offset < len(events):
            box = page(box, *events[box.offset : box.offset + read])
        before = set(sends(box))
        box = decided(box, "s", RULES, {user: Furthest(offset, offset) for user, offset in seen.items()}, now)
        for user, _, offset in set(sends(box)) - before:
            assert seen.get(user, 0) <= offset, "a device had seen it"
        unseen_at_the_time = {(user, offset) for user in seen for offset in range(seen[user], len(events))}
    told = sends(box)
    assert len(told) == len(set(told)), "once for each user and channel"
    assert box.offset == len(events)
    assert box.waiting == ()
    assert len({message.id for message in box.messages}) == len(box.messages)
    for user, offset in unseen_at_the_time:  # what is unseen to the end was unseen at its decision
        if topics[offset] in ("alert", "$run.closed"):
            assert {(user, "hook", offset), (user, "push", offset)} <= set(told)
        if topics[offset] == "sent":
            assert (user, "push", offset) in told
    for offset, topic in enumerate(topics):
        if topic == "fire":
            assert {("ada", "hook", offset), ("bob", "push", offset)} <= set(told)


@given(logs, st.integers(0, 12))
def test_a_decision_that_was_not_stored_is_made_again_with_the_same_ids(topics: list[str], read: int) -> None:
    events = [event(offset, topic) for offset, topic in enumerate(topics)]
    box = page(Box("e", 0), *events[: max(1, read)])
    positions = {"ada": Furthest(0, 0), "bob": Furthest(0, 1)}
    first, second = (decided(box, "s", RULES, positions, BEGAN + wait) for wait in (20, 25))
    assert [message.id for message in first.messages] == [message.id for message in second.messages]
