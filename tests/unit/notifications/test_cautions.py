"""Rules that can notify nobody are refused or warned about at start."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.receivers import SECRET
from tests.tokens import SECRET as KEY
from tests.unit.conftest import Serve
from wakeline.errors import SettingsInvalidError
from wakeline.gateway.rules import Notify

CHANNELS = {"ops": {"url": "https://ops.example", "secrets": [SECRET]}}


async def warnings(serve: Serve, **settings: Any) -> list[str]:
    with capture_logs() as logged:
        await serve(channels=CHANNELS, **settings)
    return [line["event"] for line in logged if "notify.ends" in line["event"]]


async def test_without_tokens_a_rule_without_users_is_warned_about(serve: Serve) -> None:
    (sentence,) = await warnings(serve, notify={"ends": Notify(topics=("$run.closed",))})
    assert "name users in the rule" in sentence


@pytest.mark.parametrize("named", [{"users": ("ada",)}, {"by_publisher": True}])
async def test_no_warning_about_a_rule_that_has_users(serve: Serve, named: dict[str, Any]) -> None:
    assert await warnings(serve, notify={"ends": Notify(topics=("$run.closed",), **named)}) == []


async def test_with_tokens_a_rule_without_users_notifies_those_with_devices(serve: Serve) -> None:
    rules = {"ends": Notify(topics=("$run.closed",))}
    assert await warnings(serve, notify=rules, no_auth=False, token_secret=KEY) == []


@pytest.mark.parametrize("topic", ["$run.close", "$run.closed.x", "$order.*", "$compact", "$"])
async def test_an_own_topic_that_there_is_not_is_refused_at_start(serve: Serve, topic: str) -> None:
    with pytest.raises(SettingsInvalidError) as caught:
        await serve(notify={"ends": Notify(topics=(topic,), users=("ada",))}, channels=CHANNELS)
    assert repr(topic) in caught.value.message
    assert "notify.ends" in caught.value.message
    assert "$run.closed, " in (caught.value.hint or "")


async def test_the_error_names_the_topic_that_was_meant(serve: Serve) -> None:
    with pytest.raises(SettingsInvalidError) as caught:
        await serve(notify={"ends": Notify(topics=("$run.close",))}, channels=CHANNELS)
    assert "did you mean $run.closed?" in caught.value.message


@pytest.mark.parametrize("topic", ["$run.*", "$*", "*", "$gap", "order"])
async def test_own_topics_prefixes_of_them_and_other_topics_are_accepted(serve: Serve, topic: str) -> None:
    assert await warnings(serve, notify={"ends": Notify(topics=(topic,), users=("ada",))}) == []
