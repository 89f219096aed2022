"""The guide to publishing from activities: its code runs as it stands. The reference names what there is, with its defaults."""

from __future__ import annotations

import asyncio
import inspect
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from tests.docs.markdown import blocks, sections, span, spans, tables, text
from wakeline.client import SessionClient
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import Settings
from wakeline.publisher import SessionPublisher, options
from wakeline.publisher.options import PublisherOptions

GUIDE = "docs/how-to/publish-from-activities.md"
REFERENCE = "docs/reference/python-publisher.md"


async def test_its_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "guide"}
    async with gateway(Settings(data=str(tmp_path), port=0, no_auth=True, durability="process")) as url:
        monkeypatch.setenv("WAKELINE_URL", url)
        code = compile("\n".join(blocks(text(GUIDE), "python")), GUIDE, "exec", dont_inherit=True)
        await asyncio.wait_for(asyncio.to_thread(exec, code, names), 60)
        activities = ActivityEnvironment()
        await activities.run(names["answer"], "?")
        await activities.run(names["growing"], "?")
        assert await activities.run(names["copy"], ["one", "two"]) == 0
        await asyncio.wait_for(asyncio.to_thread(ActivityEnvironment().run, names["report"], "order-1"), 60)
        async with SessionClient(url) as client:
            of_workflow = await client.session(activities.info.workflow_id or "").page()
            of_room = await client.session("room-1").page()
    told = [event.data for event in of_workflow.events if not event.topic.startswith("$")]
    pieces = ["It ", "is ", "packed."]
    assert told == [
        *({"text": piece} for piece in pieces),
        *pieces,
        None,
        "one",
        "two",
        {"order": "order-1", "state": "packed"},
    ]
    assert [event.data for event in of_room.events] == [21.5, "kept, whatever happens", "x"]


def option_rows() -> list[dict[str, str]]:
    return tables(sections(text(REFERENCE))["Options"])[0]


def test_every_option_is_in_the_reference_with_its_default() -> None:
    parameters = dict(inspect.signature(SessionPublisher.__init__).parameters)
    del parameters["self"]
    documented = {name: row["default"] for row in option_rows() for name in spans(row["option"])}
    assert list(documented) == list(parameters)
    for name, parameter in parameters.items():
        match parameter.default:
            case inspect.Parameter.empty:
                assert documented[name] == ""
            case None:
                assert documented[name] not in ("", "`None`")
            case timedelta() as duration:
                assert documented[name] in (f"`{duration.seconds}`", f"{duration.seconds // 60} minutes")
            case int() as number if not isinstance(number, bool):
                assert int(span(documented[name])) == number
            case default:
                assert span(documented[name]).replace('"', "") == str(default)


def test_activities_may_be_given_every_option() -> None:
    assert set(PublisherOptions.__annotations__) | {"url", "token", "session"} == set(
        inspect.signature(SessionPublisher.__init__).parameters
    ) - {"self"}


@pytest.mark.parametrize(
    ("section", "option"), [("When the buffer is full", "WhenFull"), ("When the gateway is away", "OnUnavailable")]
)
def test_every_choice_is_in_the_reference(section: str, option: str) -> None:
    (rows,) = tables(sections(text(REFERENCE))[section])
    assert tuple(span(next(iter(row.values()))) for row in rows) == getattr(options, option).__args__
