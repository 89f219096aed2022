"""The wire is that of the official library: names, fields, bytes."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, get_type_hints

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.contrib import workflow_streams as official
from temporalio.contrib.workflow_streams import _stream as official_stream
from temporalio.contrib.workflow_streams import _types as official_types
from temporalio.converter import DataConverter

from wakeline import streams
from wakeline.streams import wire

_WIRE_TYPES = ["PollInput", "PollResult", "PublishEntry", "PublishInput", "PublisherState", "WorkflowStreamState"]


def _shape(cls: Any) -> dict[str, tuple[str, Any]]:
    """Name, type and default of each field, with the item class, which has another name here, made equal."""
    hints = get_type_hints(cls)
    return {
        field.name: (
            str(hints[field.name])
            .replace("temporalio.contrib.workflow_streams._types._WorkflowStreamWireItem", "Item")
            .replace("wakeline.streams.wire.WireItem", "Item")
            .replace("temporalio.contrib.workflow_streams._types", "types")
            .replace("wakeline.streams.wire", "types"),
            field.default if field.default_factory is dataclasses.MISSING else field.default_factory(),
        )
        for field in dataclasses.fields(cls)
    }


def test_handler_names() -> None:
    assert official_stream._PUBLISH_SIGNAL == wire.PUBLISH_SIGNAL
    assert official_stream._POLL == wire.POLL
    assert official_stream._OFFSET_QUERY == wire.OFFSET_QUERY
    assert official_stream._MAX_POLL_RESPONSE_BYTES == wire.MAX_POLL_BYTES


def test_error_types() -> None:
    assert official_types.STREAM_DRAINING_ERROR_TYPE == wire.STREAM_DRAINING
    assert official_types.TRUNCATED_OFFSET_ERROR_TYPE == wire.TRUNCATED_OFFSET
    assert f'type="{wire.TRUNCATE_OUT_OF_RANGE}"' in inspect.getsource(official_stream)


def test_every_public_name_is_here() -> None:
    assert set(official.__all__) <= set(streams.__all__)


@pytest.mark.parametrize("name", _WIRE_TYPES)
def test_wire_types_have_the_same_fields(name: str) -> None:
    assert _shape(getattr(streams, name)) == _shape(getattr(official, name))


def test_items_have_the_same_fields() -> None:
    assert _shape(wire.WireItem) == _shape(official_types._WorkflowStreamWireItem)
    assert [f.name for f in dataclasses.fields(streams.WorkflowStreamItem)] == ["topic", "data", "offset"]


@pytest.mark.parametrize("cls", ["WorkflowStream", "WorkflowStreamClient", "TopicHandle", "WorkflowTopicHandle"])
def test_methods_take_what_the_official_ones_take(cls: str) -> None:
    theirs, ours = getattr(official, cls), getattr(streams, cls)
    for name, method in inspect.getmembers(theirs, callable):
        if name.startswith("_") and name != "__init__":
            continue
        expected = inspect.signature(method).parameters
        got = inspect.signature(getattr(ours, name)).parameters
        for parameter in expected.values():
            assert parameter.name in got, f"{cls}.{name}({parameter.name})"
            assert got[parameter.name].default == parameter.default, f"{cls}.{name}({parameter.name})"
            assert got[parameter.name].kind == parameter.kind, f"{cls}.{name}({parameter.name})"
        # What we add is by keyword and optional, so that no call changes its meaning.
        for name_added in got.keys() - expected.keys():
            kind = got[name_added].kind
            assert kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
            assert kind == inspect.Parameter.VAR_KEYWORD or got[name_added].default is not inspect.Parameter.empty


def test_a_payload_has_the_same_wire_form() -> None:
    payload = DataConverter.default.payload_converter.to_payload({"text": "é"})
    assert wire.encode_payload(payload) == official_types._encode_payload(payload)
    assert wire.decode_payload(official_types._encode_payload(payload)) == payload


async def test_state_is_read_from_the_official_one() -> None:
    state = official.WorkflowStreamState(
        log=[official_types._WorkflowStreamWireItem("a", wire.encode_payload(Payload(data=b"1")))],
        base_offset=7,
    )
    encoded = await DataConverter.default.encode([state])
    (ours,) = await DataConverter.default.decode(encoded, [streams.WorkflowStreamState])
    assert (ours.base_offset, ours.log[0].topic) == (7, "a")
    assert await DataConverter.default.encode([ours]) == encoded


@pytest.mark.parametrize("data", ["abc", "AAAA", "not base64!", "ä", "CgA"])
def test_what_is_no_payload_is_a_value_error(data: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  base64 says it in its own words
        wire.decode_payload(data)


@pytest.mark.parametrize("topic", ["a", "", "ä", '"\\', "日本"])
def test_an_entry_is_never_larger_than_its_wire_size(topic: str) -> None:
    data = wire.encode_payload(Payload(data=b"x" * 100))
    item = wire.WireItem(topic, data, 999_999_999_999)
    encoded = DataConverter.default.payload_converter.to_payload(item)
    assert len(encoded.data) < wire.wire_size(topic, data)
