"""An action refuses the options that it would ignore, before it does anything."""

from __future__ import annotations

import pytest

from tests.commands import wakeline

pytestmark = pytest.mark.usefixtures("forks")


@pytest.mark.parametrize(
    ("command", "refused", "hint"),
    [
        ("admin restored --check", "--check for wakeline admin restored", "has --engine."),
        ("admin shards --check", "--check for wakeline admin shards", "has --engine."),
        ("admin move --from sqlite:a --to sqlite:b --engine memory", "--engine", "has --from, --to."),
        ("admin migrate --from sqlite:a", "--from", "has --check, --engine."),
        ("admin restored --to sqlite:a", "--to", "has --engine."),
        ("notifications list s msg_1", "an id", "has a session, --state, --channel, --since, --before, --json."),
        ("notifications show s msg_1 --state dead", "--state", "has a session, an id."),
        ("notifications show s msg_1 --json", "--json", "has a session, an id."),
        ("notifications retry s msg_1 --channel ops", "--channel", "has a session, an id."),
        ("notifications retry --json", "--json", "has a session, --state, --channel, --since, --before."),
        ("notifications keys s", "a session", "has no options."),
    ],
)
async def test_an_option_that_an_action_does_not_use_is_refused(command: str, refused: str, hint: str) -> None:
    code, out, err = await wakeline(*command.split(), environment={"WAKELINE_URL": "http://127.0.0.1:1"})
    assert (code, out) == (2, "")
    assert f"expected no {refused}" in err
    assert hint in err
