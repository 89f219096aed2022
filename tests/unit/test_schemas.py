"""JSON Schemas that users write: what is checked, and that neither a schema nor a value costs much."""

from __future__ import annotations

import time
from collections.abc import Callable
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
    assert time.monotonic() - began < 1


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
    assert time.monotonic() - began < 1


def test_the_message_about_a_large_value_is_short() -> None:
    with pytest.raises(ValueInvalidError) as caught:
        Schema({"type": "integer"}).check("x" * 60_000)
    assert len(caught.value.message) < 500
