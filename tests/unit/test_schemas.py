"""JSON Schemas that users write: what is checked, and that neither a schema nor a value costs much."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from wakeline.errors import SchemaInvalidError, ValueInvalidError
from wakeline.schemas import MAX_LEVELS, MAX_PATTERNS, MAX_SUBSCHEMAS, Schema

_FORM = {
    "type": "object",
    "properties": {"approved": {"type": "boolean"}, "amount": {"$ref": "#/$defs/amount"}, "$id": {"type": "string"}},
    "required": ["approved"],
    "additionalProperties": False,
    "$defs": {"amount": {"type": "integer", "minimum": 1}},
}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "objct"}, "schema['type']: it is not a type that JSON has"),
        ({"properties": {"a": {"type": "strng"}}}, "schema['properties']['a']['type']: it is not a type that JSON has"),
        ({"required": "a"}, "schema['required']: it is not of type \"array\""),
    ],
)
def test_the_part_of_a_bad_schema_is_named(schema: Any, message: str) -> None:
    with pytest.raises(SchemaInvalidError) as refusal:
        Schema(schema)
    assert message in refusal.value.message


def test_a_value_is_checked_against_its_schema() -> None:
    schema = Schema(_FORM)
    schema.check({"approved": True, "amount": 3, "$id": "a property may have any name"})
    with pytest.raises(ValueInvalidError, match=r"payload\['amount'\]: it is less than the minimum of 1"):
        schema.check({"approved": True, "amount": 0}, "payload")
    with pytest.raises(ValueInvalidError, match='"approved" is a required property'):
        schema.check({})


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("string", "an object"),
        ({"type": "strin"}, "with an error"),
        ({"pattern": "("}, "regex"),
        ({"pattern": "(?=a)b"}, "regex"),  # backtracks
        ({"pattern": "(a{1,1000}){1,1000}"}, "regex"),  # large when compiled
        ({"$ref": "http://169.254.169.254/schema"}, "within the schema"),
        ({"$ref": "file:///etc/passwd"}, "within the schema"),
        ({"$ref": "#name"}, "within the schema"),
        ({"$ref": "#/$defs/missing"}, "the target"),
        ({"$schema": "http://127.0.0.1/schema"}, "with an error"),
        ({"$id": "http://example.com/a"}, r"without \$id"),
        ({"items": {"$dynamicRef": "#a"}}, r"without \$dynamicRef"),
        ({"allOf": [{"unevaluatedProperties": False}]}, "without unevaluatedProperties"),
        ({"unevaluatedItems": False}, "without unevaluatedItems"),
        ({"items": {"allOf": [{"multipleOf": 0.1}] * 490}}, "at most 25000 steps"),
        ({"allOf": [{"uniqueItems": True}] * 490}, "at most 25000 steps"),
        ({"enum": [{"a": n} for n in range(600)]}, "at most 25000 steps"),
        ({"items": {"$ref": "#"}}, "refers to itself"),
        ({"description": "x" * 20_000}, "at most 16384 bytes"),
        ({"anyOf": [{"minimum": n} for n in range(MAX_SUBSCHEMAS)]}, f"at most {MAX_SUBSCHEMAS} subschemas"),
        ({"enum": [object()]}, "with an error"),
    ],
)
def test_a_schema_that_is_invalid_or_costs_much_is_refused(schema: Any, message: str) -> None:
    with pytest.raises(SchemaInvalidError, match=message):
        Schema(schema)


def test_references_that_double_at_each_link_are_refused_at_once() -> None:
    links = {f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(30)}
    began = time.monotonic()
    with pytest.raises(SchemaInvalidError, match="subschemas"):
        Schema({"$ref": "#/$defs/a0", "$defs": {**links, "a30": False}})
    assert time.monotonic() - began < 30


def test_a_chain_of_references_is_refused_beyond_the_levels() -> None:
    links = {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(MAX_LEVELS)}
    with pytest.raises(SchemaInvalidError, match="levels"):
        Schema({"$ref": "#/$defs/a0", "$defs": {**links, f"a{MAX_LEVELS}": True}})


@pytest.mark.parametrize(
    "many",
    [
        lambda count: {"properties": {f"p{n}": {"pattern": f"x{n}"} for n in range(count)}},
        lambda count: {"patternProperties": {f"x{n}": True for n in range(count)}},
        lambda count: {"allOf": [{"$ref": "#/$defs/x"}] * count, "$defs": {"x": {"pattern": "x"}}},
    ],
)
def test_a_schema_has_only_so_many_patterns(many: Callable[[int], dict[str, Any]]) -> None:
    Schema(many(MAX_PATTERNS))
    with pytest.raises(SchemaInvalidError, match=f"at most {MAX_PATTERNS} patterns"):
        Schema(many(MAX_PATTERNS + 1))


def test_a_pattern_is_matched_in_linear_time() -> None:
    schema = Schema({"type": "string", "pattern": "^(a+)+$"})
    began = time.monotonic()
    with pytest.raises(ValueInvalidError, match="does not match"):
        schema.check("a" * 60_000 + "b")
    assert time.monotonic() - began < 30


def _nested(levels: int, within: Callable[[Any], Any]) -> Any:
    schema: Any = {"type": "integer"}
    for _ in range(levels):
        schema = within(schema)
    return schema


_SLOW_PATTERN = "(a|b)*a(a|b){100}[cd]"  # each byte may change 300 states
_RANDOM = "".join(random.Random(1).choices("ab", k=60_000))


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"allOf": [{"multipleOf": 0.1}] * 200}}, [1] * 32_000),
        ({"items": {"allOf": [{"multipleOf": 1e-300}] * 10}}, [1.5e300] * 9_000),
        ({"items": {"multipleOf": 0.1}}, [7 * 10**4000] * 400),
        ({"allOf": [{"uniqueItems": True}] * 200}, list(range(11_000))),
        ({"items": {"enum": [{"a": n} for n in range(400)]}}, [{"a": 399}] * 6_000),
        ({"items": {"dependentRequired": {f"a{n}": ["b"] for n in range(900)}}}, [{}] * 20_000),
        ({"propertyNames": {"allOf": [{"maxLength": 90}] * 490}}, {f"a{n}": 1 for n in range(6_000)}),
        ({"items": {"anyOf": [{"const": n} for n in range(2, 480)]}}, [1] * 32_000),
        ({"pattern": _SLOW_PATTERN}, _RANDOM),
        ({"patternProperties": {_SLOW_PATTERN: True}}, {_RANDOM: 1}),
        (_nested(45, lambda below: {"anyOf": [below]}), {f"a{n}": n for n in range(4_000)}),
    ],
    ids=range(11),
)
def test_a_check_that_would_hold_up_the_event_loop_is_refused_or_short(schema: Any, value: Any) -> None:
    checked = Schema(schema)
    began = time.process_time()
    with suppress(ValueInvalidError):
        checked.check(value)
    assert time.process_time() - began < 0.25  # 10 ms at most; on a machine that is slow meanwhile


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (_FORM, {"approved": True, "amount": 1}),
        ({"type": "string"}, "é" * 32_000),
        ({"properties": {f"p{n}": {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"} for n in range(20)}},
         {"p1": "2026-01-01", "note": "x" * 8_000}),
        ({"items": {"type": "object", "properties": {"id": {"type": "integer"}, "name": {"type": "string"}}}},
         [{"id": n, "name": "x" * 20} for n in range(1_000)]),
        ({"items": {"multipleOf": 0.01}, "uniqueItems": True}, [n / 100 for n in range(1_000)]),
    ],
    ids=range(5),
)  # fmt: skip
def test_usual_forms_and_long_texts_are_checked(schema: Any, value: Any) -> None:
    Schema(schema).check(value)


def test_the_message_about_a_large_value_is_short() -> None:
    with pytest.raises(ValueInvalidError) as caught:
        Schema({"type": "integer"}).check("x" * 60_000)
    assert len(caught.value.message) < 500
