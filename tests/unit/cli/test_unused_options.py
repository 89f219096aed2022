"""An action refuses the options that it would ignore, before it does anything."""

from __future__ import annotations

import pytest

from tests.commands import wakeline

pytestmark = pytest.mark.usefixtures("forks")


@pytest.mark.parametrize(
    ("command", "refused", "hint"),
    [
        ("admin restored --check", "wakeline admin restored does not use --check", "It uses --engine."),
        ("admin shards --check", "wakeline admin shards does not use --check", "It uses --engine."),
        ("admin move --from sqlite:a --to sqlite:b --engine memory", "--engine", "It uses --from, --to."),
        ("admin migrate --from sqlite:a", "--from", "It uses --check, --engine."),
        ("admin restored --to sqlite:a", "--to", "It uses --engine."),
        (
            "notifications list s msg_1",
            "wakeline notifications list does not use ID",
            "It uses SESSION, --state, --channel, --since, --before, --json.",
        ),
        ("notifications show s msg_1 --state dead", "--state", "It uses SESSION, ID."),
        ("notifications show s msg_1 --json", "--json", "It uses SESSION, ID."),
        (
            "notifications retry s msg_1 --channel ops",
            "retry with an ID does not use --channel",
            "It uses SESSION, ID.",
        ),
        ("notifications retry --json", "--json", "It uses SESSION, --state, --channel, --since, --before."),
        ("notifications keys s", "wakeline notifications keys does not use SESSION", "It has no options."),
    ],
)
async def test_an_option_that_an_action_does_not_use_is_refused(command: str, refused: str, hint: str) -> None:
    code, out, err = await wakeline(*command.split(), environment={"WAKELINE_URL": "http://127.0.0.1:1"})
    assert (code, out) == (2, "")
    words = " ".join(err.split())
    assert f"does not use {refused.split()[-1]}" in words
    assert refused in words
    assert hint in words
