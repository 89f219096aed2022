"""When a failed notification is sent again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.notifications.test_deciding import BEGAN, event
from wakeline.gateway.notifications.channels.channel import Outcome
from wakeline.gateway.notifications.deciding import decided, matched
from wakeline.gateway.notifications.health import DISABLED_AFTER, Condition, after_failure, after_success
from wakeline.gateway.notifications.rules import Rules
from wakeline.gateway.notifications.schedule import LONGEST_WAIT, SCHEDULE, pause
from wakeline.gateway.notifications.sending import after
from wakeline.gateway.notifications.values import Box, Message
from wakeline.gateway.rules import Notify

draws = st.floats(0, 1)
failures = st.integers(1, len(SCHEDULE) - 1)


def message() -> Message:
    rules = Rules({"r": Notify(topics=("t",), users=("ada",), grace=0)}, ["hook"])
    return decided(matched(Box("e", 0), "s", [event(0, "t")], 1, rules, BEGAN), "s", rules, {}, BEGAN).messages[0]


def test_the_schedule_is_that_of_standard_webhooks() -> None:
    assert SCHEDULE == (0, 5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 10 * 3600)


@given(failures, draws)
def test_a_pause_is_at_most_a_fifth_longer_than_the_schedule(count: int, draw: float) -> None:
    seconds = pause(count, draw)
    assert seconds is not None
    assert SCHEDULE[count] <= seconds <= SCHEDULE[count] * 1.2


@given(failures, draws, st.floats(0, 1e9))
def test_a_receiver_may_ask_for_a_longer_pause_up_to_a_day(count: int, draw: float, wanted: float) -> None:
    seconds = pause(count, draw, wanted=wanted)
    assert seconds is not None
    assert min(wanted, LONGEST_WAIT) <= seconds <= LONGEST_WAIT


@given(draws)
def test_a_message_is_dead_after_eight_attempts(draw: float) -> None:
    sent, now = message(), BEGAN
    for number in range(1, 9):
        assert sent.state == "pending"
        now = max(now, sent.due)
        sent = after(sent, Outcome("failed", "500"), now, 0.5, draw)
        assert sent.failures == number
    assert sent.state == "dead"
    assert 99_000 < now - BEGAN < 130_000, "the last attempt is some 28 hours after the first"
    assert len(sent.attempts) == 8


def test_a_message_that_is_refused_is_dead_at_once() -> None:
    assert after(message(), Outcome("refused", "400, abort-message"), BEGAN, 0.5, 0.5).state == "dead"
    assert after(message(), Outcome("gone", "410"), BEGAN, 0.5, 0.5).state == "dead"


def test_a_channel_that_fails_for_five_days_is_disabled() -> None:
    condition = after_failure(Condition("x"), BEGAN)
    assert condition == Condition("x", failing=BEGAN)
    assert not after_failure(condition, BEGAN + DISABLED_AFTER - 1).disabled
    assert after_failure(condition, BEGAN + DISABLED_AFTER).disabled


def test_one_accepted_notification_ends_a_channels_failures() -> None:
    condition = after_failure(Condition("x"), BEGAN)
    assert after_success(condition) == Condition("x")
    assert not after_failure(after_success(condition), BEGAN + DISABLED_AFTER).disabled


def test_a_receiver_that_wants_nothing_any_more_is_disabled_at_once() -> None:
    assert after_failure(Condition("x"), BEGAN, gone=True).disabled
