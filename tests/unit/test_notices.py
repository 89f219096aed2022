"""The notice of an event says who is notified, in which words, and where a tap leads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support import TIME
from wakeline.errors import RequestInvalidError
from wakeline.events import compose
from wakeline.notices import MARK, Notice, read_notice, with_notice
from wakeline.publisher.fallback import identity_json
from wakeline.publisher.frames import Identity


@pytest.mark.parametrize(
    ("fields", "users"),
    [
        ({"title": "Approve?"}, ()),
        ({"title": "Approve?", "for": "ada"}, ("ada",)),
        ({"title": "Approve?", "for": ["ada", "bob"]}, ("ada", "bob")),
        ({"title": "ä" * 128, "body": "b" * 1000, "url": "https://a.example/" + "x" * 900}, ()),
        ({"title": "t", "digest": "d", "critical": True, "url": "http://127.0.0.1:8080/x"}, ()),
    ],
)
def test_a_notice_is_read(fields: dict[str, Any], users: tuple[str, ...]) -> None:
    assert read_notice(fields).named == users


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "title"),
        ({"title": ""}, "1 to 256 bytes"),
        ({"title": "ä" * 129}, "1 to 256 bytes"),
        ({"title": "\ud83d"}, "UTF-8"),
        ({"title": 7}, "str"),
        ({"title": "t", "body": "b" * 1001}, "notify.body"),
        ({"title": "t", "url": "/relative"}, "https://"),
        ({"title": "t", "url": "javascript:alert(1)"}, "https://"),
        ({"title": "t", "url": "https://"}, "https://"),
        ({"title": "t", "url": "https://[a"}, "https://"),
        ({"title": "t", "url": "https://a.example/b c"}, "https://"),
        ({"title": "t", "for": ""}, "notify.for"),
        ({"title": "t", "for": "x" * 257}, "notify.for"),
        ({"title": "t", "for": ["ada", ""]}, "notify.for"),
        ({"title": "t", "for": [str(number) for number in range(21)]}, "at most 20"),
        ({"title": "t", "for": 7}, "for"),
        ({"title": "t", "digest": "d" * 257}, "notify.digest"),
        ({"title": "t", "critical": "yes"}, "bool"),
        ({"title": "t", "colour": "red"}, "colour"),
    ],
)
def test_a_notice_that_makes_no_sense_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestInvalidError) as refused:
        read_notice(fields)
    assert said in refused.value.message


def test_a_notice_is_the_last_member_of_an_event() -> None:
    event = with_notice(compose("t", b"1", time=TIME, key="k"), Notice("Hi", users="ada"))
    assert MARK in event.body
    whole = json.loads(b'{"offset":0,' + event.body)
    assert list(whole) == ["offset", "topic", "data", "time", "key", "notify"]
    assert whole["notify"] == {"title": "Hi", "for": "ada"}


def test_the_detour_through_the_workflow_keeps_a_notice() -> None:
    notice = {"title": "Hi", "for": "ada"}
    identity = json.loads(identity_json(Identity(session="s", publisher="p"), 7, None, None, notice))
    assert (identity["sequence"], identity["notify"]) == (7, notice)
