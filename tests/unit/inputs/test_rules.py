"""Which rules start workflows can have, and which token may use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wakeline.errors import SettingsInvalidError
from wakeline.gateway.access import Grant
from wakeline.gateway.app import gateway
from wakeline.gateway.rules import InputRules, Start
from wakeline.gateway.settings import Settings, load

RULE: dict[str, Any] = {"sessions": ["chat-*"], "workflow_type": "Chat", "task_queue": "chats"}


def rules(**changed: Any) -> InputRules:
    return InputRules(start={"chat": Start(**{**RULE, **changed})})


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"workflow_id": "chat-{user}"}, "{session}"),
        ({"sessions": ("chat-*-1",)}, "with * at the end only"),
        ({"namespace": "elsewhere"}, "a namespace of the settings"),
    ],
)
async def test_a_rule_that_cannot_be_followed_is_refused_at_start(changed: dict[str, Any], part: str) -> None:
    # Nothing answers there: the gateway starts without Temporal, and tries again.
    settings = Settings(engine="memory", no_auth=True, port=0, temporal="127.0.0.1:1", inputs=rules(**changed))
    with pytest.raises(SettingsInvalidError, match=r"inputs\.start\.chat") as refused:
        async with gateway(settings):
            pass
    assert part in refused.value.message


async def test_rules_are_of_use_with_temporal_only() -> None:
    with pytest.raises(SettingsInvalidError, match="which inputs is for"):
        async with gateway(Settings(engine="memory", no_auth=True, port=0, inputs=rules())):
            pass


async def test_outcomes_of_requests_are_remembered_without_temporal_too() -> None:
    days = InputRules(remembered=30 * 86_400.0)
    async with gateway(Settings(engine="memory", no_auth=True, port=0, inputs=days)) as url:
        assert url.startswith("http://")


async def test_a_schema_that_is_not_valid_is_refused_at_start() -> None:
    broken = InputRules(schemas={"approve": {"type": "arrow"}})
    settings = Settings(engine="memory", no_auth=True, port=0, temporal="127.0.0.1:1", inputs=broken)
    with pytest.raises(SettingsInvalidError, match=r"inputs\.schemas\.approve"):
        async with gateway(settings):
            pass


def test_rules_are_read_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "wakeline.toml"
    file.write_text('[inputs.start.chat]\nsessions = ["chat-*"]\nworkflow_type = "Chat"\ntask_queue = "chats"\n')
    assert load(file=file, environment={}).inputs == rules(sessions=("chat-*",))
    file.write_text("[inputs.start.chat]\nsessions = []\n")
    with pytest.raises(SettingsInvalidError):
        load(file=file, environment={})


@pytest.mark.parametrize(
    ("names", "allowed"),
    [
        (["$start"], True),
        (["$start.chat"], True),
        (["$start.*"], True),
        (["*"], False),
        (["$start.other"], False),
        (["$cancel"], False),
    ],
)
def test_a_token_names_all_rules_or_one(names: list[str], allowed: bool) -> None:
    grant = Grant("alice", ("chat-*",), frozenset({"input"}), inputs=(("*", tuple(names)),))
    assert grant.may_input("chat-1", "$start.chat") is allowed
    assert not grant.may_input("order-1", "$start.chat")
