"""The vectors in `tests/vectors`, which @wakeline/client folds as well: both come to the same."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from wakeline.compact import Fold
from wakeline.compact.operations import Change
from wakeline.events import Event

VECTORS = Path(__file__).parents[2] / "vectors"


def vectors(name: str) -> list[Any]:
    found: list[dict[str, Any]] = json.loads((VECTORS / f"{name}.json").read_text())
    return [pytest.param(vector, id=vector["title"]) for vector in found]


def fold(events: Iterable[dict[str, Any]]) -> Fold:
    folded = Fold()
    for event in events:
        raw = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
        folded.add(Event(event["offset"], event["topic"], raw.partition(b",")[2]))
    return folded


def content(folded: Fold) -> dict[str, Any]:
    """What a reader shows: the values of messages, the latest data of keys, the offsets of other events."""
    held = [json.loads(event.json()) for event in folded.events()]
    messages = [
        {
            "topic": topic,
            "id": name,
            "value": json.loads(message.value()),
            "complete": any(segment.complete for segment in message.segments),
        }
        for (topic, name), message in folded.messages.items()
    ]
    return {
        "messages": sorted(messages, key=lambda message: (message["topic"], message["id"])),
        "keyed": sorted([e["topic"], e["key"], e["data"]] for e in held if "key" in e),
        "events": [e["offset"] for e in held if "key" not in e and "message" not in e],
    }


@pytest.mark.parametrize("vector", vectors("operations"))
def test_operations_come_to_the_value(vector: dict[str, Any]) -> None:
    change = Change()
    for op, data in vector["ops"]:
        change.apply(op, json.dumps(data).encode())
    assert json.loads(change.settled().value()) == vector["value"]


@pytest.mark.parametrize("vector", vectors("sessions"))
def test_the_log_comes_to_the_content(vector: dict[str, Any]) -> None:
    assert content(fold(vector["log"])) == vector["expected"]


@pytest.mark.parametrize("vector", vectors("sessions"))
def test_the_compact_form_and_the_rest_come_to_the_same(vector: dict[str, Any]) -> None:
    begins = vector["compact"]["next_offset"]
    rest = [event for event in vector["log"] if event["offset"] >= begins]
    assert content(fold([*vector["compact"]["events"], *rest])) == vector["expected"]


@pytest.mark.parametrize("vector", vectors("sessions"))
def test_the_compact_form_is_the_one_that_the_gateway_makes(vector: dict[str, Any]) -> None:
    log = [event for event in vector["log"] if event["offset"] < vector["compact"]["next_offset"]]
    assert [json.loads(event.json()) for event in fold(log).events()] == vector["compact"]["events"]
